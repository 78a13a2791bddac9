"""What pages name of the package is there: modules, functions, classes and their members, by their dotted names."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import pmpo_offline

ROOT = Path(__file__).parents[2]
ROOMS = {path.name for path in Path(pmpo_offline.__file__).parent.iterdir() if path.is_dir()}
GROUPS = "pmpo_offline."
"""How names in full begin, and groups of entry points, which tests/docs/test_extending.py looks at."""
ABOUT = ("AGENTS.md", "CONTRIBUTING.md", "README.md", "SECURITY.md", "benchmarks/speed/README.md")
PAGES = [
    *(ROOT / name for name in ABOUT),
    *(path for folder in ("docs", "docs/howto") for path in sorted((ROOT / folder).glob("*.md"))),
    *sorted((ROOT / "benchmarks" / "results").glob("**/README.md")),
]


def names(page: Path) -> list[str]:
    """Return the dotted names of a page's prose that begin with a subpackage."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"`((?:\w+\.)+\w+)(?:\([^`]*\))?`", prose)
    return sorted({name for name in found if name.removeprefix(GROUPS).split(".")[0] in ROOMS})


@cache
def is_there(name: str) -> bool:
    """Return whether a dotted name is a module or what one defines, perhaps in a class."""
    parts = name.removeprefix(GROUPS).split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(["pmpo_offline", *parts[:count]]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_names_is_there(page: Path) -> None:
    assert [name for name in names(page) if not is_there(name)] == []


def test_names_are_found_and_what_is_gone_is_noticed() -> None:
    found = names(ROOT / "docs" / "architecture.md")
    assert len(found) > 20
    assert "build.recorded_task" in found
    for gone in ("training.control.gone", "build.pipeline.gone", "pmpo_offline.training.em"):
        assert not is_there(gone), gone
