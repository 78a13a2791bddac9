"""The built wheel works outside the checkout: it carries the declarations, and nothing of the results or the peers."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
CODE = """
import importlib.util, sys
from pmpo_offline.cli.main import run
run(["list", "--json"])
print(sys.modules["pmpo_offline"].__file__)
print(importlib.util.find_spec("datasets").origin)
"""


def files(folder: str, *kinds: str) -> set[str]:
    """Return the paths of a folder's files of these kinds, from the root."""
    found = (path for kind in kinds for path in (ROOT / folder).rglob(f"*{kind}"))
    return {str(path.relative_to(ROOT)) for path in found if "peers" not in path.parts}


def test_wheel_works_from_any_directory(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path / "built")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    [wheel] = (tmp_path / "built").glob("*.whl")
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
    listed, ours, theirs = done.stdout.splitlines()
    assert Path(ours).is_relative_to(installed)
    assert "site-packages" in theirs, "`import datasets` stays Hugging Face's"
    content = json.loads(listed)
    built = {each["id"]: each["built"] for each in content["datasets"]}
    assert {"rgb-stacking/proxy-v0": False, "bandit/gmm-v0": False}.items() <= built.items()
    assert {suite["name"] for suite in content["suites"]} == {
        Path(name).stem for name in files("benchmarks/suites", ".toml")
    }
    assert {"pmpo", "dpo", "kto", "mpo", "bc"} <= {each["name"] for each in content["algorithms"]}
