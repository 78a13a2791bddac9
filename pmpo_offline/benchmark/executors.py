"""Execute a suite's cells: train, evaluate and store what is missing, and go on where an earlier run stopped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import torch

from pmpo_offline.benchmark import control_cells, language_cells
from pmpo_offline.benchmark.job import Job, Learn
from pmpo_offline.benchmark.results import SCHEMA, Results
from pmpo_offline.benchmark.suite import Cell, Condition, Settings
from pmpo_offline.declarations.catalog import SuiteDeclaration
from pmpo_offline.evaluation.normalized import check_versions
from pmpo_offline.evaluation.rollouts import check_simulated
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import PmpoOfflineError

if TYPE_CHECKING:
    from pmpo_offline.data import Dataset


@dataclass(frozen=True)
class Local:
    """Executes cells on this machine, one condition after another."""

    suite: SuiteDeclaration
    results: Results
    workers: int | None
    home: Path | None

    def run(self, cells: Sequence[Cell], *, fresh: bool) -> tuple[list[str], list[str]]:
        """Run what is missing; return the keys of all rows, and a line for each cell or condition that failed."""
        if self.workers is not None:
            torch.set_num_threads(self.workers)
        keys: list[str] = []
        failures: list[str] = []
        # One algorithm or share may be impossible where others are not; the rest of the table should not wait.
        error: PmpoOfflineError | None = None
        done = 0
        for condition, neighbours in groupby(cells, key=lambda cell: cell.condition):
            group = list(neighbours)
            try:
                dataset = self.open(condition)
            except PmpoOfflineError as failure:
                error = failure
                failures.append(f"{condition.title}: {failure}")
                done += len(group)
                continue
            jobs = [Job(self.suite, cell, dataset, dataset.fingerprint) for cell in group]
            with self.learner(jobs, fresh=fresh) as learn:
                for job in jobs:
                    progress.report("benchmark", done, len(cells))
                    try:
                        self.cell(job, learn, keys)
                    except PmpoOfflineError as failure:
                        error = failure
                        failures.append(f"{job.cell.title}: {failure}")
                    done += 1
        progress.report("benchmark", done, len(cells))
        if error is not None and not keys:
            raise error
        return keys, failures

    def open(self, condition: Condition) -> Dataset:
        """Return a condition's dataset: a standing one with other labels in memory, else one that is built."""
        from pmpo_offline.build import build_dataset, is_built
        from pmpo_offline.data import load_dataset

        name, imbalance, noise = condition.dataset, condition.imbalance, condition.noise
        if is_built(name, self.home):
            return load_dataset(name, imbalance=imbalance, noise=noise, home=self.home)
        share = None if imbalance == "collected" else imbalance
        dataset = build_dataset(name, imbalance=share, noise=noise, home=self.home, workers=self.workers)
        # A recipe may declare a share of its own, which can only be undone afterwards.
        return dataset.relabelled(imbalance="collected") if imbalance == "collected" else dataset

    @contextmanager
    def learner(self, jobs: Sequence[Job], *, fresh: bool) -> Iterator[Learn]:
        """Yield what trains and evaluates the jobs of one condition, one after another; `fresh`: forget them first."""
        possible = []
        for job in jobs:
            with suppress(PmpoOfflineError):  # it will be said when its turn comes
                possible.append((job, job.rows))
        for key in (key for _, rows in possible for key in rows) if fresh else ():
            self.results.remove(key)
            self.results.discard_checkpoint(key)
        if any(job.is_language for job in jobs):
            wanted = [(job, self.missing(job)) for job, _ in possible]
            with language_cells.side_by_side(wanted, self.results, self.workers, self.home) as learn:
                yield learn
        else:
            yield partial(control_cells.learn, results=self.results, workers=self.workers, fresh=fresh)

    def missing(self, job: Job) -> dict[str, Settings]:
        """Return the settings of a job's rows whose scores are not there, by key."""
        return {key: settings for key, settings in job.rows.items() if not self.results.path(key).exists()}

    def cell(self, job: Job, learn: Learn, keys: list[str]) -> None:
        """Train, evaluate and store what is missing of a cell; add the keys of its rows, though some should fail."""
        missing = self.missing(job)
        if missing:
            metadata = job.dataset.metadata
            check_versions(metadata.id, metadata.references)
            if not job.is_language:
                check_simulated(metadata.id, metadata.task)
        try:
            for key, scores in learn(job, missing) if missing else ():
                constants = job.constants(job.rows[key]).items()
                columns = [pl.lit(value, SCHEMA[column]).alias(column) for column, value in constants]
                self.results.write(key, scores.with_columns(columns))
        finally:
            keys += [key for key in job.rows if self.results.path(key).exists()]
