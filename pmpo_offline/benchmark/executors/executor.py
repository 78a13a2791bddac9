"""What an executor is, and how a plan is executed: in rounds, until all rows have scores or have failed."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from pmpo_offline.benchmark import work
from pmpo_offline.benchmark.plan import Agenda, Plan, Unit, prepare
from pmpo_offline.benchmark.results import Failure, Results
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.files import atomic_file
from pmpo_offline.runtime.registry import Registry

ROUNDS = 4
"""How often a unit is started whose process dies, before that is recorded as its failure."""
MINUTES = 5
RATE = 400
"""Gradient steps a second of stacked runs on one core (`benchmarks/results/speed/mlp-cpu.md`: 560 on an idle one)."""


@dataclass(frozen=True)
class Outcome:
    """What a process reports of the units that it was given; their scores are in the store."""

    units: Sequence[Unit]
    warnings: Sequence[str] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Contents of the store by name, from a machine that may not share the folder."""
    lost: str | None = None
    """Why the process ended before it had run them all; None if it did not."""


class Executor(Protocol):
    """Runs units somewhere; `bench --executor NAME` chooses one.

    Another package adds one by an entry point of the group `pmpo_offline.executors`: a class that is made with a `Plan`
    (`plan.workers` are the processes at once that the user asked for) and whose `run` starts processes that call
    `work.run`. It may be called again with units that were not finished.
    """

    def __init__(self, plan: Plan) -> None: ...

    def run(self, units: Sequence[Unit]) -> Iterator[Outcome]:
        """Run the units in any order, and yield an outcome as each process finishes. Losing a process is an outcome."""
        ...


EXECUTORS: Registry[type[Executor]] = Registry(
    "executor",
    "pmpo_offline.executors",
    {
        "local": "pmpo_offline.benchmark.executors.local:Local",
        "ray": "pmpo_offline.benchmark.executors.ray_tasks:RayTasks",
        "submitit": "pmpo_offline.benchmark.executors.slurm:Submitit",
    },
)


def execute(plan: Plan, executor: str) -> tuple[list[str], list[str]]:
    """Run what is missing of a plan; return the keys of all rows with scores, and a line for all else.

    Raises the last `PmpoOfflineError` if there are no scores at all, and `UserError` for an unknown executor or one
    whose packages are not installed.
    """
    chosen = EXECUTORS[executor](plan)
    agenda = prepare(plan)
    units, total = agenda.units, len(agenda.units)
    lost: dict[str, str] = {}
    for _ in range(ROUNDS):
        for outcome in chosen.run(units) if units else ():
            _accept(outcome, plan.results, lost)
            progress.report("benchmark", sum(unit.is_settled for unit in agenda.units), total)
        # What another benchmark had claimed, or what was lost: the next rounds wait for it, or run it.
        units = [replace(unit, wait=True) for unit in units if not unit.is_settled]
    for unit in units:
        for key in unit.rows:
            if not plan.results.is_settled(key):
                reason = lost.get(unit.name, "it was not run")
                plan.results.fail(key, unit.cell.title, PmpoOfflineError(f"{reason} ({ROUNDS} attempts)"))
    return _concluded(agenda, plan.results)


def _accept(outcome: Outcome, results: Results, lost: dict[str, str]) -> None:
    for message in outcome.warnings:
        warnings.warn(message, stacklevel=4)
    for name, content in outcome.files.items():
        path = results.output / name
        if not path.exists():
            with atomic_file(path) as scratch:
                scratch.write_bytes(content)
    if outcome.lost is not None:
        lost |= {unit.name: outcome.lost for unit in outcome.units}


def _concluded(agenda: Agenda, results: Results) -> tuple[list[str], list[str]]:
    keys = [key for key in agenda.keys if results.path(key).exists()]
    failures = [failure for key in agenda.keys if (failure := results.failure(key)) is not None]
    if not keys and (agenda.errors or failures):
        raise _error(failures[-1]) if failures else agenda.errors[-1][1]
    lines = [*(f"{title}: {error}" for title, error in agenda.errors), *map(str, failures)]
    return keys, list(dict.fromkeys(lines))


def _error(failure: Failure) -> PmpoOfflineError:
    return (UserError if failure.is_request else PmpoOfflineError)(failure.error)


def bundles(units: Iterable[Unit], slots: int) -> list[list[Unit]]:
    """Return neighbours together, so that a task takes some minutes, and each of `slots` processes gets two or more.

    Language models take minutes each.
    """
    units = list(units)
    at_most = min(MINUTES * 60 * RATE, sum(unit.updates for unit in units) / (2 * slots))
    together: list[list[Unit]] = []
    size = 0.0
    for unit in units:
        if not together or unit.is_language or size + unit.updates > at_most:
            together.append([])
            size = 0
        together[-1].append(unit)
        size = at_most if unit.is_language else size + unit.updates
    return together


def run_on_node(units: Sequence[Unit]) -> Outcome:
    """Run units on a machine of a cluster, with one thread; return what is known of them: it may share no folder."""
    told = work.run_elsewhere(units, threads=1)
    files: dict[str, bytes] = {}
    for unit in units:
        for path in (path for key in unit.rows for path in unit.results.files(key)):
            files[str(Path(path).relative_to(unit.output))] = path.read_bytes()
    return Outcome(units, told, files)
