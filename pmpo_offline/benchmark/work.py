"""Run units of a benchmark in this process: open their dataset, train, evaluate, store scores or the error.

Executors call it wherever they start processes. The store is the truth: rows that have scores or have failed are not
run again, and one process at a time runs a unit, so that several benchmarks share one folder of results.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import polars as pl

from pmpo_offline.benchmark import curves, episodes
from pmpo_offline.benchmark.plan import Missing, Unit, base_model, open_condition, stack_name
from pmpo_offline.benchmark.results import SCHEMA, TRAINING
from pmpo_offline.benchmark.suite import Condition, Job
from pmpo_offline.data import Dataset
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError

Scores = Iterator[tuple[str, pl.DataFrame]]
"""The raw scores of each row as they come, with its key."""


def run(units: Sequence[Unit]) -> None:
    """Run what is missing of each unit; one that fails is recorded with its error and does not stop the others."""
    for unit in units:
        results = unit.results
        with results.claim(unit.name, wait=unit.wait) as held:
            if not held:
                continue
            rows = {key: settings for key, settings in unit.rows.items() if not results.is_settled(key)}
            try:
                if rows:
                    _run(unit, rows)
            except Exception as error:
                for key in rows:
                    if not results.path(key).exists():
                        results.fail(key, unit.cell.title, error)
            if all(results.path(key).exists() for key in unit.rows):  # a process may be killed before it has cleaned up
                for name in (unit.name, *unit.rows):
                    results.discard_checkpoint(name)


def run_elsewhere(units: Sequence[Unit], threads: int) -> list[str]:
    """Run units in a process that was started for it, with so many threads; return the warnings for its parent."""
    import torch

    torch.set_num_threads(threads)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        run(units)
    return [str(warning.message) for warning in caught if warning.category is UserWarning]


def _run(unit: Unit, rows: Missing) -> None:
    job = Job(unit.suite, unit.cell, _dataset(unit.cell.condition, unit.dataset_sha, unit.home))
    if not rows.keys() <= job.rows.keys():
        raise PmpoOfflineError(
            f"the versions or reference scores of this machine are others ({json.dumps(job.versions)}): install the "
            "same packages everywhere"
        )
    model = base_model(job.model, unit.home) if job.is_language else None
    if model != unit.model:
        raise PmpoOfflineError(f"the weights of {job.model} on this machine are others: copy or share the model")
    if job.is_language:
        from pmpo_offline.benchmark.language_cells import learn_language as learn
    else:
        learn = learn_control
    for key, scores in learn(job, unit, rows):
        constants = job.constants(job.rows[key]).items()
        columns = [pl.lit(value, SCHEMA[column]).alias(column) for column, value in constants]
        unit.results.write(key, scores.with_columns(columns), model)


@lru_cache(maxsize=1)
def _dataset(condition: Condition, sha: str, home: Path | None) -> Dataset:
    """Open or build a condition's dataset; `PmpoOfflineError` unless it is the one of this hash."""
    with warnings.catch_warnings(action="ignore"):  # given when the benchmark was prepared
        dataset = open_condition(condition, home, workers=1)
    if dataset.fingerprint != sha:
        raise UserError(
            f"{condition.dataset} is another dataset on this machine (content {dataset.fingerprint[:12]}, expected "
            f"{sha[:12]}): share the folder of datasets, or remove it here so that it is built from its recipe"
        )
    return dataset


def learn_control(job: Job, unit: Unit, rows: Missing) -> Scores:
    """Train all settings and seeds of a control cell as one stacked batch, and evaluate it in a batched simulator."""
    import torch

    from pmpo_offline import tasks
    from pmpo_offline.evaluation.rollouts import score
    from pmpo_offline.training import tracking, train

    results, seeds, stack = unit.results, job.seeds, stack_name(rows)
    recorded = curves.stack_metrics(results, rows, job.cell.title)
    with progress.stage(job.cell.title), tracking.observed(recorded):
        trained = train(
            job.dataset,
            job.cell.algorithm,
            seeds=seeds,
            settings=list(rows.values()),
            checkpoint=results.checkpoint(stack),
            references=results.output / "references",
            shuffle_labels=job.cell.shuffled,
            overrides=job.overrides,
        )
        task, first = job.dataset.metadata.task, unit.suite.first_episode
        played = first + unit.suite.episodes
        scores, trajectories = score(trained.policy, tasks.get(task), played, torch.get_num_threads())
        scores = scores.with_row_index("place").filter(pl.col("episode") >= first)
    curves.store_stack(results, recorded, rows, seeds)
    # Run order: for each setting, for each seed.
    scores = scores.with_columns(row=pl.col("run") // len(seeds), seed=seeds.start + pl.col("run") % len(seeds))
    ended = {name: trained.metrics[name].tolist() for name in TRAINING if name in trained.metrics}
    scores = scores.with_columns(pl.Series(name, ended[name], pl.Float64).gather(scores["run"]) for name in ended)
    diverged = []
    for row, name in enumerate(rows):
        if any(trained.diverged[row * len(seeds) :][: len(seeds)]):
            diverged.append(json.dumps(rows[name]))
            continue
        own = scores.filter(pl.col("row") == row)
        if trajectories is not None:
            episodes.store(results, name, own, trajectories, task)
        yield name, own.with_columns(beta_min=pl.lit(trained.bounds[row], pl.Float64))
    results.discard_checkpoint(stack)
    if diverged:
        raise PmpoOfflineError(f"training diverged with {' and with '.join(diverged)}: no scores of these settings")
