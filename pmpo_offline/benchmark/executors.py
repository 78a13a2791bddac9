"""Execute a suite's cells: train, evaluate and store what is missing; a later run continues where one was stopped."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import polars as pl
import torch

from pmpo_offline.benchmark.results import SCHEMA, Results
from pmpo_offline.benchmark.suite import Cell, Condition, Job, Settings
from pmpo_offline.declarations.catalog import SuiteDeclaration
from pmpo_offline.evaluation.rollouts import check_scorable
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import PmpoOfflineError
from pmpo_offline.runtime.hashing import hash_json
from pmpo_offline.runtime.registry import Registry

if TYPE_CHECKING:
    from pmpo_offline.data import Dataset

Missing = dict[str, Settings]
"""The settings of the rows that are to be run, by key."""
Learn = Callable[[Job, Missing], Iterable[tuple[str, pl.DataFrame]]]
"""Trains and evaluates the missing rows of a job; yields the raw scores of each as they come, with its key."""


@dataclass(frozen=True)
class Plan:
    """A suite's cells, and where and how to run them."""

    suite: SuiteDeclaration
    cells: Sequence[Cell]
    """Those on equal data are neighbours."""
    results: Results
    fresh: bool = False
    """Remove the scores of these cells first."""
    workers: int | None = None
    home: Path | None = None


class Executor(Protocol):
    """Runs the cells of a suite; `bench --executor NAME` chooses one.

    Another package adds one by an entry point of the group `pmpo_offline.executors`: a class that is made with a `Plan`
    and whose `run` is called once. It opens the dataset of each condition, and makes a `Job` of each cell and dataset,
    which has the rows with their keys. Rows whose scores `plan.results` holds are not run again, unless `plan.fresh`;
    the scores of the others are written by `plan.results.write`, each as soon as it is known, so that an interrupted
    run continues. A cell that fails does not stop the others.
    """

    def __init__(self, plan: Plan) -> None: ...

    def run(self) -> tuple[list[str], list[str]]:
        """Return the keys of all rows that have scores, and one line for each cell or condition that failed.

        Raises the last `PmpoOfflineError` if there are no scores at all.
        """


class Local:
    """Executes cells on this machine, one condition after another."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._keys: list[str] = []
        self._errors: list[tuple[str, PmpoOfflineError]] = []
        self._models: dict[str, str | None] = {}

    def run(self) -> tuple[list[str], list[str]]:
        """Run what is missing, as `Executor.run`."""
        plan, done = self.plan, 0
        if plan.workers is not None:
            torch.set_num_threads(plan.workers)
        for condition, neighbours in groupby(plan.cells, key=lambda cell: cell.condition):
            cells = list(neighbours)
            with self._failing(condition.title):
                dataset = self.open(condition)
                jobs = [Job(plan.suite, cell, dataset) for cell in cells]
                with self.learner(jobs) as learn:
                    for number, job in enumerate(jobs):
                        progress.report("benchmark", done + number, len(plan.cells))
                        with self._failing(job.cell.title):
                            self.cell(job, learn)
            done += len(cells)
        progress.report("benchmark", done, len(plan.cells))
        if self._errors and not self._keys:
            raise self._errors[-1][1]
        return self._keys, [f"{title}: {error}" for title, error in self._errors]

    @contextmanager
    def _failing(self, title: str) -> Iterator[None]:
        """Record an error: where an algorithm or a share is impossible, others are not, and the table goes on."""
        try:
            yield
        except PmpoOfflineError as error:
            self._errors.append((title, error))

    def open(self, condition: Condition) -> Dataset:
        """Return a condition's dataset: a stored one with other labels in memory, or one that is built."""
        from pmpo_offline.build import build_dataset, is_built
        from pmpo_offline.data import load_dataset

        name, imbalance, noise, home = condition.dataset, condition.imbalance, condition.noise, self.plan.home
        if is_built(name, home):
            return load_dataset(name, imbalance=imbalance, noise=noise, home=home)
        share = None if imbalance == "collected" else imbalance
        dataset = build_dataset(name, imbalance=share, noise=noise, home=home, workers=self.plan.workers)
        # A recipe may declare a share of its own, which can only be undone afterwards.
        return dataset.relabelled(imbalance="collected") if imbalance == "collected" else dataset

    @contextmanager
    def learner(self, jobs: Sequence[Job]) -> Iterator[Learn]:
        """Yield the function that trains and evaluates the jobs of one condition, one after another."""
        wanted = []
        for job in jobs:
            with suppress(PmpoOfflineError):  # reported when the cell runs
                self.clear(job)
                wanted.append((job, self.missing(job)))
        if jobs[0].is_language:
            from pmpo_offline.benchmark.language_cells import side_by_side

            model = self.model(jobs[0]) if any(missing for _, missing in wanted) else None
            with side_by_side(wanted, self.plan, model) as learn:
                yield learn
        else:
            yield partial(learn_control, plan=self.plan)

    def clear(self, job: Job) -> None:
        """Remove the scores that are to be made again: all if `plan.fresh`, else those of another base model."""
        results = self.plan.results
        if self.plan.fresh:
            for key in (*job.rows, _stack(job.rows)):
                results.path(key).unlink(missing_ok=True)
                results.discard_checkpoint(key)
        for key in job.rows if job.is_language else ():
            recorded = results.model(key)
            if recorded is not None and self.model(job) not in (None, recorded):
                warnings.warn(f"{job.cell.title}: {job.model} has changed since it was scored: run again", stacklevel=2)
                results.path(key).unlink(missing_ok=True)

    def missing(self, job: Job) -> Missing:
        """Return the settings of a job's rows without scores, by key; `UserError` if they cannot be scored here."""
        missing = {key: settings for key, settings in job.rows.items() if not self.plan.results.path(key).exists()}
        if missing:
            check_scorable(job.dataset.metadata)
        return missing

    def model(self, job: Job) -> str | None:
        """Return the content hash of the model that training starts from, None if there is no such model here.

        It is stored beside the scores, because keys hold the model's name alone.
        """
        from pmpo_offline.policies.language.model import model_hash
        from pmpo_offline.tasks.language import model_directory

        if job.model not in self._models:
            self._models[job.model] = None
            with suppress(PmpoOfflineError):  # reported when the cell runs
                self._models[job.model] = model_hash(model_directory(job.model, self.plan.home))
        return self._models[job.model]

    def cell(self, job: Job, learn: Learn) -> None:
        """Train, evaluate and store what is missing of a cell; record the keys of its rows, even if some fail."""
        results = self.plan.results
        try:
            missing = self.missing(job)
            model = self.model(job) if missing and job.is_language else None
            for key, scores in learn(job, missing) if missing else ():
                constants = job.constants(job.rows[key]).items()
                columns = [pl.lit(value, SCHEMA[column]).alias(column) for column, value in constants]
                results.write(key, scores.with_columns(columns), model)
        finally:
            self._keys += [key for key in job.rows if results.path(key).exists()]


EXECUTORS: Registry[type[Executor]] = Registry("executor", "pmpo_offline.executors", {"local": Local})


def learn_control(job: Job, missing: Missing, plan: Plan) -> Iterator[tuple[str, pl.DataFrame]]:
    """Train all settings and seeds of a control cell as one stacked batch, and evaluate it in a batched simulator."""
    from pmpo_offline.evaluation import evaluate
    from pmpo_offline.training import train

    results, seeds, stack = plan.results, range(plan.suite.seeds), _stack(missing)
    with progress.stage(job.cell.title):
        trained = train(
            job.dataset,
            job.cell.algorithm,
            seeds=seeds,
            settings=list(missing.values()),
            checkpoint=results.checkpoint(stack),
            references=results.output / "references",
            shuffle_labels=job.cell.shuffled,
            overrides=job.overrides,
        )
        task, episodes = job.dataset.metadata.task, plan.suite.episodes
        scores = evaluate(trained.policy, task, episodes=episodes, workers=plan.workers)
    # Run order: for each setting, for each seed.
    scores = scores.with_columns(row=pl.col("run") // len(seeds), seed=pl.col("run") % len(seeds))
    diverged = []
    for row, name in enumerate(missing):
        if any(trained.diverged[row * len(seeds) :][: len(seeds)]):
            diverged.append(json.dumps(missing[name]))
            continue
        bound = pl.lit(trained.bounds[row], pl.Float64)
        yield name, scores.filter(pl.col("row") == row).with_columns(beta_min=bound)
    results.discard_checkpoint(stack)
    if diverged:
        raise PmpoOfflineError(f"training diverged with {' and with '.join(diverged)}: no scores of these settings")


def _stack(rows: Missing) -> str:
    """Return the name of the checkpoint of rows that are trained together."""
    return hash_json({"rows": list(rows)})[:16]
