"""Processes of this machine: a unit a process at a time, and as many threads together as there are cores."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait

import torch

from pmpo_offline.benchmark import work
from pmpo_offline.benchmark.executors.executor import Outcome
from pmpo_offline.benchmark.plan import Plan, Unit
from pmpo_offline.runtime.errors import PmpoOfflineError
from pmpo_offline.runtime.processes import processes

MODELS = 4
"""Language models at once by default: each process holds one, and what its training needs."""


class Local:
    """Runs units in processes of this machine; in this process where one is enough, or where there is a GPU."""

    def __init__(self, plan: Plan) -> None:
        self.workers = plan.workers

    def run(self, units: Sequence[Unit]) -> Iterator[Outcome]:
        """Run control, then language models, as `Executor.run`."""
        cores = os.cpu_count() or 1
        for chosen, most in (
            ([unit for unit in units if not unit.is_language], cores),
            ([unit for unit in units if unit.is_language], min(cores, MODELS)),
        ):
            at_once = min(self.workers or most, len(chosen))
            if at_once > 1 and not torch.cuda.is_available():
                yield from _side_by_side(chosen, at_once, max(1, cores // at_once))
                continue
            if self.workers is not None:
                torch.set_num_threads(self.workers)
            for unit in chosen:
                work.run([unit])
                yield Outcome([unit])


def _side_by_side(units: Sequence[Unit], at_once: int, threads: int) -> Iterator[Outcome]:
    """Run units in `at_once` processes; those that ran when a process was killed are lost, the others go on."""
    waiting = deque(units)
    running: dict[Future[list[str]], Unit] = {}
    while waiting:
        try:
            with processes(at_once, "ran a part of the benchmark") as submit:
                while waiting or running:
                    while waiting and len(running) < at_once:
                        future = submit(work.run_elsewhere, [waiting[0]], threads)
                        running[future] = waiting.popleft()
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        told = future.result()
                        yield Outcome([running.pop(future)], told)
        except PmpoOfflineError as error:
            for unit in running.values():
                yield Outcome([unit], lost=str(error))
            running.clear()
