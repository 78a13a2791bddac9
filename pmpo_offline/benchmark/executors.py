"""Execute a suite's cells: train, evaluate and store what is missing, and go on where an earlier run stopped."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import torch

from pmpo_offline import __version__, catalog
from pmpo_offline.benchmark.results import SCHEMA, Results, fingerprint, key
from pmpo_offline.benchmark.suite import Cell, Condition, Settings
from pmpo_offline.catalog import SuiteDeclaration
from pmpo_offline.errors import PmpoOfflineError
from pmpo_offline.evaluation.normalized import check_versions

if TYPE_CHECKING:
    from pmpo_offline.data import Dataset

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Local:
    """Executes cells in this process, one after another."""

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
                    keys += self.cell(cell, dataset, content, fresh=fresh)
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

    def cell(self, cell: Cell, dataset: Dataset, content: str, *, fresh: bool) -> list[str]:
        """Train and evaluate what is missing of a cell; return the keys of all its rows."""
        from pmpo_offline.training import settle

        complete = [settle(cell.algorithm, settings, dataset) for settings in cell.settings]
        keys = [key(self.determinants(cell, settings, dataset, content)) for settings in complete]
        for name in keys if fresh else []:
            self.results.remove(name)
        missing = [(k, s) for k, s in zip(keys, complete, strict=True) if not self.results.path(k).exists()]
        if missing:
            check_versions(dataset.metadata.id, dataset.metadata.references)
            self.train(cell, dataset, content, dict(missing), fresh=fresh)
        return keys

    def determinants(self, cell: Cell, settings: Settings, dataset: Dataset, content: str) -> dict[str, Any]:
        """Return everything that the scores of one row depend on."""
        references = dataset.metadata.references
        learner = {"name", "family", "objective", "rows", "top", "start", "critic"}
        return {
            "dataset": cell.condition.dataset,
            "content": content,
            "references": None if references is None else [references.min, references.max],
            # Without what is not declared: scores of before there were critics keep their keys.
            "algorithm": cell.algorithm.model_dump(include=learner, exclude_defaults=True),
            "training": self.training(cell),
            "settings": settings,
            "shuffled": cell.shuffled,
            "seeds": self.suite.seeds,
            "episodes": self.suite.episodes,
            "versions": versions(),
        }

    def training(self, cell: Cell) -> dict[str, Any]:
        """Return the trainer's hyperparameters for a cell."""
        return {**cell.algorithm.training, **self.overrides()}

    def overrides(self) -> dict[str, Any]:
        """Return what the suite sets in place of the algorithms' own training hyperparameters."""
        return {} if self.suite.updates is None else {"updates": self.suite.updates}

    def train(self, cell: Cell, dataset: Dataset, content: str, rows: Mapping[str, Settings], *, fresh: bool) -> None:
        """Train the rows of a cell as one stack, evaluate it, and store each row's raw scores."""
        from pmpo_offline.evaluation import evaluate
        from pmpo_offline.training import train

        stack = key({"rows": list(rows)})
        checkpoint = self.results.checkpoint(stack)
        if fresh:
            self.results.discard_checkpoint(stack)
        seeds = range(self.suite.seeds)

        def progress(stage: str, done: int, total: int) -> None:
            self.progress(f"{cell.title}: {stage}", done, total)

        trained = train(
            dataset,
            cell.algorithm,
            seeds=seeds,
            settings=list(rows.values()),
            checkpoint=checkpoint,
            references=self.results.output / "references",
            shuffle_labels=cell.shuffled,
            overrides=self.overrides(),
            progress=progress,
        )
        scores = evaluate(
            trained.policy,
            dataset.metadata.task,
            episodes=self.suite.episodes,
            workers=self.workers,
            progress=progress,
        )
        # Run order: for each setting, for each seed.
        scores = scores.with_columns(row=pl.col("run") // len(seeds), seed=pl.col("run") % len(seeds))
        for row, (name, settings) in enumerate(rows.items()):
            constants = self.constants(cell, settings, dataset, content) | {"beta_min": trained.bounds[row]}
            columns = [pl.lit(value, SCHEMA[column]).alias(column) for column, value in constants.items()]
            self.results.write(name, scores.filter(pl.col("row") == row).with_columns(columns))
        self.results.discard_checkpoint(stack)

    def constants(self, cell: Cell, settings: Settings, dataset: Dataset, content: str) -> dict[str, Any]:
        """Return the columns of the raw scores that are equal in all of a row's episodes."""
        metadata = dataset.metadata
        references = metadata.references
        return {
            "dataset": cell.condition.dataset,
            "dataset_sha": content,
            "algo": cell.algorithm.name,
            "settings": json.dumps(settings),
            "training": json.dumps(self.training(cell)),
            "imbalance": metadata.imbalance.asked,
            "share": metadata.imbalance.achieved,
            "noise": metadata.noise,
            "shuffled": cell.shuffled,
            "reference": cell.reference,
            "reference_min": None if references is None else references.min,
            "reference_max": None if references is None else references.max,
            "beta": settings.get("beta"),
            "versions": json.dumps(versions()),
        }


def versions() -> dict[str, str]:
    """Return the versions of what the scores come from."""
    packages = ("mujoco", "numpy", "torch")
    return {"pmpo-offline": __version__} | {name: importlib.metadata.version(name) for name in packages}
