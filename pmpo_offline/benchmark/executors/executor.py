"""What an executor is, and what those of clusters share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pmpo_offline.benchmark import work
from pmpo_offline.benchmark.plan import Plan, Unit

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
