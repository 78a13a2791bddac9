"""Train and evaluate a cell of control: all its settings and seeds as one stacked batch, in a batched simulator."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from pmpo_offline.benchmark.job import Job
from pmpo_offline.benchmark.results import Results, key
from pmpo_offline.benchmark.suite import Settings
from pmpo_offline.runtime import progress


def learn(
    job: Job, missing: dict[str, Settings], *, results: Results, fresh: bool, workers: int | None
) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield the raw scores of each missing row, with its key.

    Args:
        job: the cell with its dataset.
        missing: the settings of the rows that are to be run, by key.
        results: where the stack keeps its checkpoint until the last row was taken.
        fresh: forget a checkpoint.
        workers: threads of the simulator.
    """
    from pmpo_offline.evaluation import evaluate
    from pmpo_offline.training import train

    stack = key({"rows": list(missing)})
    if fresh:
        results.discard_checkpoint(stack)
    seeds = range(job.suite.seeds)
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
        scores = evaluate(trained.policy, job.dataset.metadata.task, episodes=job.suite.episodes, workers=workers)
    # Run order: for each setting, for each seed.
    scores = scores.with_columns(row=pl.col("run") // len(seeds), seed=pl.col("run") % len(seeds))
    for row, name in enumerate(missing):
        bound = pl.lit(trained.bounds[row], pl.Float64)
        yield name, scores.filter(pl.col("row") == row).with_columns(beta_min=bound)
    results.discard_checkpoint(stack)
