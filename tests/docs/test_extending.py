"""docs/extending.md shows the files of the example package, which tests/test_extension.py installs and uses."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "tests" / "example_plugin"
BLOCK = re.compile(r"^\[`(.+?)`\]\(.+?\)\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LIMITS = {"objective.py": 40, "task.py": 80, "form.py": 30}


def test_the_page_shows_the_files_of_the_example_package():
    shown = dict(BLOCK.findall(PAGE))
    assert shown == {name: (EXAMPLE / name).read_text(encoding="utf-8") for name in shown}
    files = {path.relative_to(EXAMPLE).as_posix() for path in EXAMPLE.rglob("*") if path.suffix in (".py", ".toml")}
    assert files - set(shown) == {name for name in files if name.endswith("__init__.py")}, "every file is shown"


def test_examples_are_short():
    for name, lines in LIMITS.items():
        assert len((EXAMPLE / "pmpo_offline_example" / name).read_text().splitlines()) <= lines, name


def test_every_registry_of_the_package_is_in_the_table():
    shown = dict(re.findall(r"^\| `(pmpo_offline\.\w+)` \|.*\| `([\w/.]+)` \|$", PAGE, re.MULTILINE))
    package = ROOT / "pmpo_offline"
    used = {
        group: path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for group in re.findall(r'Registry\([^()]*?"(pmpo_offline\.\w+)"', path.read_text(encoding="utf-8"))
    }
    assert used.pop("pmpo_offline.objectives") == "declarations/registries.py", "which takes all names that are shown"
    assert shown.pop("pmpo_offline.objectives") == "objectives/__init__.py"
    assert used
    assert shown == used | {"pmpo_offline.algorithms": "baselines/", "pmpo_offline.datasets": "datasets/"}
