"""A few damaged files of every kind are read or refused in one line, in this process; `make fuzz` reads 50,000."""

from __future__ import annotations

import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from fuzz.mutations import mutated
from fuzz.run import Journal, attempt, lines_of, next_line
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


def test_a_stopped_run_goes_on_from_its_journal(tmp_path: Path) -> None:
    def journal(seed: int = 0) -> Journal:
        return Journal(Namespace(journal=tmp_path / "journal.jsonl", seed=seed, first=10, target=None))

    first = journal()
    for number, outcome in ((10, "read"), (11, "failure")):
        first.begin(number, "csv")
        first.end(number, "csv", outcome, "why")
    first.begin(12, "csv")
    with first.path.open("a") as file:  # type: ignore[union-attr]
        file.write('{"input": 12, "tar')  # what a kill leaves
    again = journal()
    assert (again.position, again.counts, again.failures) == (12, first.counts, ["input 11 (csv): why"])
    again.end(12, "csv", "refused")
    assert journal().position == 13
    with pytest.raises(SystemExit, match="of other inputs"):
        journal(seed=1)


def test_a_worker_that_hangs_is_noticed_after_lines_that_came_together() -> None:
    code = "import time; print('{}\\n{}', flush=True); time.sleep(60)"
    worker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    answers = lines_of(worker)
    assert [next_line(answers, 60), next_line(answers, 60)] == ["{}\n", "{}\n"]
    assert next_line(answers, 0.1, worker.pid) is None
    worker.kill()
    worker.wait()
    assert next_line(answers, 60) == ""


def test_a_worker_that_computes_for_too_long_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuzz.run.CPU_SECONDS", 0.2)
    worker = subprocess.Popen([sys.executable, "-c", "while True: pass"], stdout=subprocess.PIPE, text=True)
    assert next_line(lines_of(worker), 600, worker.pid) is None
    worker.kill()
    worker.wait()
