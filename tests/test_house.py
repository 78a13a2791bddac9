"""The layout of the package: its subpackages ("rooms"), the layers ("floors") they are on, and what may import what."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import pmpo_offline

PACKAGE = Path(pmpo_offline.__file__).parent
FLOORS = (
    {"runtime", "objectives"},
    {"data", "policies", "declarations"},
    {"tasks"},
    {"training"},
    {"build", "evaluation", "online"},
    {"benchmark"},
    {"cli"},
)
"""From the bottom up. A room imports rooms below it, and never one above it or on its own floor."""
ROOMS = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Yield the rooms that a file imports, at its top or inside a function; not what is for the type checker alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "pmpo_offline":
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]


def room_of(path: Path) -> str | None:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else None


def test_every_folder_is_a_known_room_and_no_module_is_loose():
    assert {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()} == set(ROOMS)
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}
    assert len(ROOMS) <= 12
    assert len(FLOORS) <= 7


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_rooms_import_only_what_is_below_them(room: str):
    for path in (PACKAGE / room).rglob("*.py"):
        for other in set(imports(path)) & set(ROOMS) - {room}:
            assert ROOMS[other] < ROOMS[room], f"{path} imports {other}"


def test_objectives_import_nothing_of_the_package():
    for path in (PACKAGE / "objectives").rglob("*.py"):
        assert set(imports(path)) <= {"objectives"}, path


def test_policies_do_not_know_objectives():
    for path in (PACKAGE / "policies").rglob("*.py"):
        assert "objectives" not in set(imports(path)), path


def test_every_room_says_what_is_in_it():
    for room in ROOMS:
        said = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8")))
        assert said, room
        assert 40 < len(said) < 1200, room


def test_no_folder_holds_more_than_twenty_files():
    for folder in {path.parent for path in FILES}:
        assert len(list(folder.glob("*.py"))) <= 20, folder


def test_hashes_are_computed_in_one_module():
    assert [path for path in FILES if "hashlib" in path.read_text(encoding="utf-8")] == [PACKAGE / "runtime/hashing.py"]


def test_files_are_made_atomic_in_one_module():
    assert [path for path in FILES if "fsync" in path.read_text(encoding="utf-8")] == [PACKAGE / "runtime/files.py"]


def test_progress_is_no_parameter():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                assert "progress" not in {argument.arg for argument in [*node.args.args, *node.args.kwonlyargs]}, path
