"""What the page on the architecture names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import pmpo_offline

PACKAGE = Path(pmpo_offline.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"
NAMES = sorted(
    name
    for name in set(re.findall(r"`((?:\w+\.)+\w+)(?:\([^`]*\))?`", PAGE.read_text(encoding="utf-8")))
    if (PACKAGE / name.partition(".")[0]).is_dir()
)


def is_there(name: str) -> bool:
    """Return whether a dotted name is a folder, a module, or what a module defines (perhaps in a class)."""
    place, parts = PACKAGE, name.split(".")
    while parts and (place / parts[0]).is_dir():
        place /= parts.pop(0)
    if not parts:
        return True
    module = place / f"{parts.pop(0)}.py"
    body: list[ast.stmt] = ast.parse(module.read_text(encoding="utf-8")).body if module.is_file() else []
    for part in parts:
        found = [each for each in body if isinstance(each, ast.ClassDef | ast.FunctionDef) and each.name == part]
        body = found[0].body if found else []
    return bool(body)


def test_names_are_found() -> None:
    assert len(NAMES) > 20
    assert "build.recorded_task" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_what_the_page_names_is_there(name: str) -> None:
    assert is_there(name)


def test_what_is_gone_is_noticed() -> None:
    assert not is_there("training.control.gone")
    assert not is_there("build.pipeline.gone")
