"""A few damaged files of every kind are read or refused in one line, in this process; `make fuzz` reads 50,000."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fuzz.mutations import mutated
from fuzz.run import attempt
from fuzz.targets import TARGETS

IN_A_PROCESS_OF_ITS_OWN = {"run"}
"""Kinds whose sound files take seconds to make."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(set(TARGETS) - IN_A_PROCESS_OF_ITS_OWN))
def test_damaged_files_are_read_or_refused(tmp_path: Path, name: str) -> None:
    sound = tmp_path / "sound"
    sound.mkdir()
    TARGETS[name].make(sound)
    shutil.copytree(sound, tmp_path / "read")
    right = TARGETS[name].read(tmp_path / "read")
    for number in range(6):
        outcome, why = attempt(TARGETS[name], sound, right, tmp_path / "input", f"short:{number}")
        assert outcome in ("read", "refused"), f"{number}: {why}"


def test_damage_is_a_function_of_the_seed() -> None:
    content = bytes(range(256)) * 4
    assert mutated(content, "0:1") == mutated(content, "0:1") != content
    assert len({mutated(content, f"0:{number}") for number in range(200)}) > 190
