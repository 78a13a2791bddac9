"""Calls in other processes: every result, and a process that is killed loses its own call only."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.dying import square

from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.processes import ATTEMPTS, completed, executor


def test_a_killed_process_loses_its_call_only(tmp_path: Path) -> None:
    tasks = [(tmp_path, number, int(number == 1)) for number in range(4)]
    found = {number: result for (_, number, _), result in completed(square, tasks, 2, "squared")}
    assert found == {0: 0, 1: 1, 2: 4, 3: 9}
    assert {int(path.name): len(path.read_text()) for path in tmp_path.iterdir()} == {0: 1, 1: 2, 2: 1, 3: 1}


def test_a_call_that_is_always_killed_is_an_error_after_all_others(tmp_path: Path) -> None:
    calls = completed(square, [(tmp_path, 0, 9), (tmp_path, 1, 0)], 2, "squared")
    assert next(calls) == ((tmp_path, 1, 0), 1)
    with pytest.raises(PmpoOfflineError, match="a process that squared was killed"):
        next(calls)
    assert len((tmp_path / "0").read_text()) == ATTEMPTS


def test_one_process_is_this_one(tmp_path: Path) -> None:
    assert [result for _, result in completed(lambda number: number, [(1,), (2,)], 1, "counted")] == [1, 2]


def test_an_unknown_executor_is_refused() -> None:
    with pytest.raises(UserError, match="ray"), executor("rya"):
        pass
