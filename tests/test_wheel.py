"""The built wheel works outside the checkout: it carries the declarations, and nothing of the results or the peers."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_wheel_works_from_any_directory(tmp_path: Path) -> None:
    built = tmp_path / "built"
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(built)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    [wheel] = built.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        results = [name for name in names if name.endswith((".parquet", ".png")) and "/datasets/" not in name]
        assert not results + [name for name in names if "/peers/" in name]
        sampled = {path.name for path in (ROOT / "datasets" / "language").glob("*.parquet")}
        assert sampled
        assert sampled <= {Path(name).name for name in names}, "nobody needs to sample again"
        declared = {str(path.relative_to(ROOT)) for path in (ROOT / "baselines").rglob("*.toml")}
        declared = {name for name in declared if not name.startswith("baselines/peers/")}
        shipped = {name.partition("/_declarations/")[2] for name in names}
        assert declared
        assert {name for name in shipped if name.startswith("baselines/")} == declared
        assert "pmpo_offline/tasks/stacking/scene.xml" in names
        archive.extractall(installed)

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(installed), "PMPO_OFFLINE_DATASETS": str(tmp_path / "home")}
    run = [sys.executable, "-c"]
    code = "import pmpo_offline, datasets; print(pmpo_offline.__file__); print(datasets.__file__)"
    ours, theirs = subprocess.run(
        [*run, code], cwd=elsewhere, env=environment, check=True, capture_output=True, text=True, timeout=60
    ).stdout.splitlines()
    assert Path(ours).is_relative_to(installed)
    assert "site-packages" in theirs, "`import datasets` stays Hugging Face's"

    listed = subprocess.run(
        [sys.executable, "-m", "pmpo_offline", "list", "--json"],
        cwd=elsewhere,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    content = json.loads(listed.stdout)
    declared = {each["id"]: each["built"] for each in content["datasets"]}
    assert {"rgb-stacking/proxy-v0": False, "bandit/gmm-v0": False}.items() <= declared.items()
    assert {suite["name"] for suite in content["suites"]} == {
        path.stem for path in (ROOT / "benchmarks").glob("*.toml")
    }
    assert {"pmpo", "dpo", "kto", "mpo", "bc"} <= {each["name"] for each in content["algorithms"]}
