"""Processes side by side, failures, two benchmarks in one folder, shards."""

from __future__ import annotations

import json
import os
import platform
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from helpers.dying import second_killed

from pmpo_offline.benchmark import EXECUTORS, Local, Outcome, Plan, Unit, report_on, work
from pmpo_offline.benchmark.executors import local
from pmpo_offline.benchmark.executors.executor import run_on_node
from pmpo_offline.benchmark.plan import prepare
from pmpo_offline.benchmark.results import Results
from pmpo_offline.benchmark.runner import execute, part
from pmpo_offline.benchmark.suite import expand
from pmpo_offline.cli.main import run
from pmpo_offline.declarations import catalog
from pmpo_offline.runtime.errors import UserError

CELLS = 5


@pytest.mark.usefixtures("forkserver")
def test_a_killed_process_loses_nothing_and_two_give_the_table_of_one(
    tmp_path: Path, small, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, calls, in_processes, ended = tmp_path / "out", tmp_path / "calls", local.in_processes, []

    def one_killed(function, *arguments):
        for task, result, reason in in_processes(partial(second_killed, calls, function), *arguments):
            ended.append(reason is None)
            yield task, result, reason

    monkeypatch.setattr(local, "in_processes", one_killed)
    done = small.bench(output, workers=2)
    assert sorted(ended) == [False, *[True] * (CELLS - 1)]
    assert not done.failures
    assert done.rows == small.whole.rows
    assert {path.name for path in output.iterdir()} >= {"raw", "references"}
    assert not (output / "checkpoints").exists()
    killed = (calls / "1").read_text()
    assert all(f"-{killed}-" in path.name for path in output.rglob("*.tmp"))  # of which `clean` removes it
    assert not list(output.rglob("*.claim"))


@pytest.mark.parametrize("again", ["in the same benchmark", "in the next"])
def test_a_process_killed_before_it_has_cleaned_up_leaves_no_checkpoint(
    tmp_path: Path, small, monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    output = tmp_path / "out"
    suite = catalog.suite(str(small.path))
    cells = expand(suite, dict.fromkeys(suite.datasets, "bandit"))
    units = prepare(Plan(suite, cells, Results(output), home=small.home)).units
    with monkeypatch.context() as patched:
        patched.setattr(Results, "discard_checkpoint", _killed)
        with pytest.raises(KeyboardInterrupt):
            small.bench(output, workers=1)
    raw = list(output.glob("raw/*.parquet"))
    left = list(output.glob("checkpoints/*"))
    assert raw
    assert left
    left[0].with_name(f".{left[0].name}.{platform.node()}-1-1.tmp").touch()  # as of a process killed while it wrote
    if again == "in the same benchmark":
        work.run(units)
    done = small.bench(output, workers=1)
    assert done.rows == small.whole.rows
    assert not (output / "checkpoints").exists()


def _killed(self: Results, key: str) -> None:
    raise KeyboardInterrupt


def test_what_fails_is_recorded_and_run_again_when_asked(
    tmp_path: Path, small, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    learn, tried = work.learn_control, []

    def fails(job, unit, rows):
        tried.append(job.cell.title)
        if job.cell.algorithm.name == "pmpo" and not job.cell.shuffled:
            raise MemoryError("no room for\nthe gradients")
        return learn(job, unit, rows)

    command = ["bench", str(small.path), "--output", str(tmp_path), "--home", str(small.home), "--workers", "1"]
    monkeypatch.setattr(work, "learn_control", fails)
    assert run(command) == 1
    assert len(tried) == CELLS
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: pmpo, ")
    assert line.endswith(": MemoryError: no room for the gradients")
    (path,) = (tmp_path / "failed").iterdir()
    assert "raise MemoryError" in "".join(json.loads(path.read_text())["traceback"])

    monkeypatch.undo()
    again = small.bench(tmp_path, workers=1)
    assert len(again.failures) == len(report_on(tmp_path).failures) == 1, "not run again, and not forgotten"
    assert len(again.rows) == CELLS - 1
    retried = small.bench(tmp_path, workers=1, retry_failed=True)
    assert not retried.failures
    assert retried.rows == small.whole.rows
    assert not (tmp_path / "failed").exists()


def test_a_benchmark_without_any_score_raises_what_was_recorded(
    tmp_path: Path, small, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(job, unit, rows):
        raise UserError("not like this")

    monkeypatch.setattr(work, "learn_control", fails)
    with pytest.raises(UserError, match="not like this"):
        small.bench(tmp_path, workers=1)
    monkeypatch.undo()
    with pytest.raises(UserError, match="not like this"):
        small.bench(tmp_path, workers=1)


def test_two_benchmarks_share_one_folder_and_the_work(tmp_path: Path, small, monkeypatch: pytest.MonkeyPatch) -> None:
    learn, ran = work.learn_control, []

    def counted(job, unit, rows):
        ran.append(job.cell.title)
        return learn(job, unit, rows)

    monkeypatch.setattr(work, "learn_control", counted)
    suite = catalog.suite(str(small.path))
    cells = expand(suite, dict.fromkeys(suite.datasets, "bandit"))
    plan = Plan(suite, cells, Results(tmp_path), workers=1, home=small.home)
    threads = [threading.Thread(target=execute, args=(plan, "local")) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ran) == len(set(ran)) == CELLS, "each cell once"
    assert not (tmp_path / "checkpoints").exists()
    assert small.bench(tmp_path, workers=1).rows == small.whole.rows
    assert len(ran) == CELLS


def test_shards_of_several_machines_merge_into_the_table(tmp_path: Path, small) -> None:
    merged = tmp_path / "merged"
    for number in (1, 2, 3):
        output = tmp_path / f"shard-{number}"
        command = ["bench", str(small.path), "--shard", f"{number}/3", "--output", str(output), "--workers", "1"]
        assert run([*command, "--home", str(small.home)]) == 0
        shutil.copytree(output, merged, dirs_exist_ok=True)
    assert len(list((tmp_path / "shard-1" / "raw").iterdir())) < CELLS
    assert report_on(merged).rows == small.whole.rows
    assert report_on(merged).title == "Small bandits"
    assert Results(merged).commands() == Results(small.whole.output).commands()


def test_shards_are_disjoint_and_complete() -> None:
    cells = list(range(10))
    for count in range(1, 11):
        assert [cell for number in range(count) for cell in part(cells, number + 1, count)] == cells
    for wrong in ((0, 2), (3, 2), (1, 11)):
        with pytest.raises(UserError, match="shard"):
            part(cells, *wrong)


def test_nodes_that_share_no_folder_build_the_dataset_and_send_scores_back(
    tmp_path: Path, small, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Node(Local):
        def run(self, units: Sequence[Unit]) -> Iterator[Outcome]:
            yield run_on_node([replace(unit, output=tmp_path / "node", home=tmp_path / "home") for unit in units])

    monkeypatch.setitem(EXECUTORS._loaded, "node", Node)
    done = small.bench(tmp_path / "out", executor="node")
    assert done.rows == small.whole.rows
    assert [*(tmp_path / "home" / "test").glob("sphere-*")], "built from its recipe"


def test_another_dataset_of_the_same_name_is_refused(tmp_path: Path, small) -> None:
    """What a node finds in its folder is compared with what the benchmark was planned on."""
    suite = catalog.suite(str(small.path))
    cells = expand(suite, dict.fromkeys(suite.datasets, "bandit"))[:1]
    (unit,) = prepare(Plan(suite, cells, Results(tmp_path), home=small.home)).units
    work.run([replace(unit, dataset_sha="0" * 64)])
    (failure,) = Results(tmp_path).failures()
    assert "is another dataset on this machine" in str(failure)
    assert failure.is_request


@pytest.mark.usefixtures("forkserver")
@pytest.mark.parametrize(("cores", "pools"), [(2, [4]), (8, [2, 2])])
def test_on_few_cores_language_models_run_in_the_processes_of_control(
    small, monkeypatch: pytest.MonkeyPatch, cores: int, pools: list[int]
) -> None:
    started, in_processes = [], local.in_processes

    def counted(function, tasks, workers, work):
        started.append(len(tasks))
        return in_processes(function, tasks, workers, work)

    monkeypatch.setattr(local, "in_processes", counted)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    suite = catalog.suite(str(small.path))
    plan = Plan(
        suite, expand(suite, dict.fromkeys(suite.datasets, "bandit")), Results(small.path.parent), home=small.home
    )
    units = [replace(unit, output=small.whole.output) for unit in prepare(plan).units[:2]]  # which are finished
    units += [replace(unit, is_language=True) for unit in units]
    outcomes = [*Local(plan).run(units)]
    assert started == pools
    assert len(outcomes) == 4
    assert not any(outcome.lost for outcome in outcomes)
