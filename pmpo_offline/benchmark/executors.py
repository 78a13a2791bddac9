"""Execute a suite's cells: train, evaluate and store what is missing, and go on where an earlier run stopped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import torch

from pmpo_offline import catalog
from pmpo_offline.benchmark import stacks
from pmpo_offline.benchmark.job import Job
from pmpo_offline.benchmark.results import SCHEMA, Results, fingerprint
from pmpo_offline.benchmark.suite import Cell, Condition, Progress, Settings
from pmpo_offline.catalog import SuiteDeclaration
from pmpo_offline.errors import PmpoOfflineError
from pmpo_offline.evaluation.normalized import check_versions

if TYPE_CHECKING:
    from pmpo_offline.data import Dataset


@dataclass(frozen=True)
class Local:
    """Executes cells on this machine, one condition after another."""

    suite: SuiteDeclaration
    results: Results
    workers: int | None
    home: Path | None
    progress: Progress

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
            content = fingerprint({name: getattr(dataset, name) for name in ("table", "episodes", "candidates")})
            for cell in group:
                self.progress("benchmark", done, len(cells))
                try:
                    keys += self.cell(Job(self.suite, cell, dataset, content), fresh=fresh)
                except PmpoOfflineError as failure:
                    error = failure
                    failures.append(f"{cell.title}: {failure}")
                done += 1
        self.progress("benchmark", done, len(cells))
        if error is not None and not keys:
            raise error
        return keys, failures

    def open(self, condition: Condition) -> Dataset:
        """Return a condition's dataset: a standing one with other labels in memory, else one that is built."""
        from pmpo_offline.build import build_dataset
        from pmpo_offline.data import load_dataset

        name, imbalance, noise = condition.dataset, condition.imbalance, condition.noise
        if catalog.stands(name, self.home):
            return load_dataset(name, imbalance=imbalance, noise=noise, home=self.home)
        share = None if imbalance == "collected" else imbalance
        dataset = build_dataset(
            name, imbalance=share, noise=noise, home=self.home, workers=self.workers, progress=self.progress
        )
        # A recipe may declare a share of its own, which can only be undone afterwards.
        return dataset.relabelled(imbalance="collected") if imbalance == "collected" else dataset

    def cell(self, job: Job, *, fresh: bool) -> list[str]:
        """Train, evaluate and store what is missing of a cell; return the keys of all its rows."""
        for key in job.rows if fresh else []:
            self.results.remove(key)
        missing = {key: settings for key, settings in job.rows.items() if not self.results.path(key).exists()}
        if missing:
            metadata = job.dataset.metadata
            check_versions(metadata.id, metadata.references)
            self.store(job, self.scores(job, missing, fresh=fresh))
        return list(job.rows)

    def scores(self, job: Job, missing: dict[str, Settings], *, fresh: bool) -> Iterable[tuple[str, pl.DataFrame]]:
        """Return the raw scores of the missing rows as they come, with their keys."""

        def progress(stage: str, done: int, total: int) -> None:
            self.progress(f"{job.cell.title}: {stage}", done, total)

        return stacks.run(job, missing, self.results, fresh=fresh, workers=self.workers, progress=progress)

    def store(self, job: Job, scores: Iterable[tuple[str, pl.DataFrame]]) -> None:
        """Write each row's scores, completed by what all its episodes share."""
        for key, frame in scores:
            constants = job.constants(job.rows[key]).items()
            columns = [pl.lit(value, SCHEMA[column]).alias(column) for column, value in constants]
            self.results.write(key, frame.with_columns(columns))
