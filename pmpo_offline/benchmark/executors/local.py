"""Processes of this machine: a unit a process at a time, and as many threads together as there are cores."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import torch

from pmpo_offline.benchmark import work
from pmpo_offline.benchmark.executors.executor import Outcome
from pmpo_offline.benchmark.plan import Plan, Unit
from pmpo_offline.runtime.processes import in_processes

MODELS = 4
"""Language models at once by default: each process holds one, and what its training needs."""
_WORK = "ran a part of the benchmark"


class Local:
    """Runs units in processes of this machine; in this process where one is enough, or where there is a GPU."""

    def __init__(self, plan: Plan) -> None:
        self.workers = plan.workers

    def run(self, units: Sequence[Unit]) -> Iterator[Outcome]:
        """Run control, then language models, as `Executor.run`; on few cores in the same processes."""
        cores = os.cpu_count() or 1
        control = [unit for unit in units if not unit.is_language]
        language = [unit for unit in units if unit.is_language]
        groups = [(control, cores), (language, MODELS)] if cores > MODELS else [(control + language, cores)]
        for chosen, most in groups:
            at_once = min(self.workers or most, len(chosen))
            if at_once > 1 and not torch.cuda.is_available():
                tasks = [([unit], max(1, cores // at_once)) for unit in chosen]
                for (own, _), told, lost in in_processes(work.run_elsewhere, tasks, at_once, _WORK):
                    yield Outcome(own, told or [], lost=lost)
                continue
            if self.workers is not None:
                torch.set_num_threads(self.workers)
            for unit in chosen:
                work.run([unit])
                yield Outcome([unit])
