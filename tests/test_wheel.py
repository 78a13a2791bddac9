"""A wheel built from the sdist works outside the checkout: it has the declarations, and no results or peers."""

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pmpo_offline

ROOT = Path(__file__).parent.parent
CODE = """
import importlib.util, sys
from pmpo_offline.cli.main import run
for kind in ("datasets", "suites", "algorithms"):
    run(["list", kind, "--json"])
print(sys.modules["pmpo_offline"].__file__)
print(importlib.util.find_spec("datasets").origin)
"""


def files(folder: str, *kinds: str) -> set[str]:
    """Return the paths of a folder's files of these kinds, from the root."""
    found = (path for kind in kinds for path in (ROOT / folder).rglob(f"*{kind}"))
    return {str(path.relative_to(ROOT)) for path in found if "peers" not in path.parts}


def build(target: str, source: Path, folder: Path) -> Path:
    """Build a distribution of a source folder; return its file."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder / target)]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=120)
    [file] = (folder / target).iterdir()
    return file


def unpacked(sdist: Path, folder: Path) -> Path:
    """Unpack an sdist; return the folder with its content."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    [content] = folder.iterdir()
    return content


def test_wheel_works_from_any_directory(tmp_path: Path) -> None:
    wheel = build("wheel", unpacked(build("sdist", ROOT, tmp_path), tmp_path / "source"), tmp_path)
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        archive.extractall(installed)
    declared = files("datasets", "") | files("baselines", ".toml") | files("benchmarks/suites", ".toml")
    declared -= {name for name in declared if not (ROOT / name).is_file()}
    assert {name.partition("/_declarations/")[2] for name in names if "/_declarations/" in name} == declared
    assert any(name.endswith(".parquet") for name in declared), "sampled responses are shipped"
    code = {name for name in files("pmpo_offline", "") if "__pycache__" not in name and (ROOT / name).is_file()}
    assert {name for name in names if "/_declarations/" not in name} == code

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(installed), "PMPO_OFFLINE_DATASETS": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=elsewhere, env=environment, check=True, capture_output=True, text=True
    )
    version = [sys.executable, "-m", "pmpo_offline", "--version"]
    said = subprocess.run(version, cwd=elsewhere, env=environment, check=True, capture_output=True, text=True).stdout
    assert said == f"pmpo-offline {pmpo_offline.__version__}\n"
    *listed, ours, theirs = done.stdout.splitlines()
    assert Path(ours).is_relative_to(installed)
    assert "site-packages" in theirs, "`import datasets` stays Hugging Face's"
    content = {kind: entries for line in listed for kind, entries in json.loads(line).items()}
    built = {each["id"]: each["built"] for each in content["datasets"]}
    assert {"rgb-stacking/proxy-v0": False, "bandit/gmm-v0": False}.items() <= built.items()
    assert {suite["name"] for suite in content["suites"]} == {
        Path(name).stem for name in files("benchmarks/suites", ".toml")
    }
    assert {"pmpo", "dpo", "kto", "mpo", "bc"} <= {each["name"] for each in content["algorithms"]}
