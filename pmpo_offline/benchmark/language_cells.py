"""Train and evaluate the language models of a row, run by run.

```
<output>/checkpoints/<key>-<model>/run-<seed>/     a training's files, and `scores.parquet` once it is evaluated
```
A run is one adapter with one seed. It starts from the model that made the dataset's responses, whose content hash is in
the folder's name, and is evaluated on the same held-out prompts, with the same random numbers, as every other. Finished
runs of a killed benchmark are not repeated.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from pmpo_offline.benchmark import curves, episodes
from pmpo_offline.benchmark.plan import Missing, Unit
from pmpo_offline.benchmark.results import read_sealed, write_sealed
from pmpo_offline.benchmark.suite import Job, Settings
from pmpo_offline.data import Dataset
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import PmpoOfflineError
from pmpo_offline.training import tracking

if TYPE_CHECKING:
    from pmpo_offline.policies.language import LanguageModel

SHOWN = 12
"""Held-out prompts of a run whose answers are kept for the report."""


@dataclass(frozen=True)
class Run:
    """One training run with its evaluation."""

    job: Job
    settings: Settings
    seed: int
    folder: Path
    home: str | Path | None

    @property
    def scores(self) -> Path:
        """The file of its raw scores; it exists once the run is finished."""
        return self.folder / "scores.parquet"


def learn_language(job: Job, unit: Unit, rows: Missing) -> Iterator[tuple[str, pl.DataFrame]]:
    """Train and evaluate the runs of each row, one after another; yield the raw scores of each row with its key.

    One setting may diverge where others do not: the others are run, then the first error is raised.
    """
    with _quick_garbage_collection():
        yield from _learned(job, unit, rows)


@contextmanager
def _quick_garbage_collection() -> Iterator[None]:
    """Exempt from garbage collection what is there: the Trainer collects at every start, .4 s over all of it."""
    import pmpo_offline.training.language.run  # noqa: F401  with all that it needs

    gc.freeze()
    try:
        yield
    finally:
        gc.collect()  # what the cell leaves, so that the next one does not exempt it
        gc.unfreeze()


def _learned(job: Job, unit: Unit, rows: Missing) -> Iterator[tuple[str, pl.DataFrame]]:
    failure: PmpoOfflineError | None = None
    suffix = "" if unit.model is None else f"-{unit.model[:16]}"
    for key, settings in rows.items():
        folder = unit.results.checkpoint(key + suffix)
        runs = [Run(job, settings, seed, folder / f"run-{seed}", unit.home) for seed in job.seeds]
        try:
            for done, run in enumerate(runs):
                progress.report(f"{job.cell.title}: training runs", done, len(runs))
                if not run.scores.exists():
                    execute(run)
            progress.report(f"{job.cell.title}: training runs", len(runs), len(runs))
        except PmpoOfflineError as error:
            failure = failure or error
            continue
        curves.store_runs(unit.results, key, {run.seed: run.folder / tracking.FILE for run in runs})
        scores = pl.concat([read_sealed(run.scores) for run in runs])
        episodes.store_answers(unit.results, key, scores)
        yield key, scores
        unit.results.discard_checkpoint(key)
    if failure is not None:
        raise failure


def execute(run: Run) -> None:
    """Train one run and write its raw scores; an interrupted training continues, and a finished one is not repeated."""
    from pmpo_offline.policies.language.model import load_adapter, open_model
    from pmpo_offline.tasks.language import model_directory
    from pmpo_offline.training.language import train_language

    job = run.job
    trained = train_language(
        job.dataset,
        job.cell.algorithm,
        settings=run.settings,
        seed=run.seed,
        output=run.folder,
        home=run.home,
        shuffle_labels=job.cell.shuffled,
        overrides=job.overrides,
    )
    reference = open_model(model_directory(job.model, run.home))
    scores = raw_scores(load_adapter(reference, trained.adapter), reference, job.dataset, job.suite.episodes)
    bound = pl.lit(trained.bound, pl.Float64)
    write_sealed(run.scores, scores.with_columns(seed=pl.lit(run.seed), beta_min=bound), {})


def raw_scores(policy: LanguageModel, reference: LanguageModel, dataset: Dataset, count: int) -> pl.DataFrame:
    """Return what a table records of `count` samples of a policy, of any trainer, on held-out prompts of a dataset.

    A record is an episode: what `evaluate_language` measures, `perplexity` of the policy, `layout`, and of the first
    `SHOWN` the stored and the `learned` answers.
    """
    from pmpo_offline.evaluation.language import Sampling, evaluate_language
    from pmpo_offline.evaluation.language.held_out import held_out_prompts
    from pmpo_offline.evaluation.language.perplexity import perplexity, prose

    # One sample a prompt as long as there are prompts: another prompt is more informative than another sample.
    samples = -(-count // len(held_out_prompts(dataset)))
    sampling = Sampling(samples, prompts=-(-count // samples))
    scores = evaluate_language(policy, reference, dataset, sampling).head(count)
    answers = stored_answers(dataset)
    scores = scores.with_row_index("episode").join(answers, on="prompt_id", how="left", maintain_order="left")
    return scores.with_columns(
        learned=pl.when(pl.col("episode") < SHOWN).then("completion"),
        layout=pl.format("prompt {}", "prompt_id"),
        perplexity=pl.lit(perplexity(policy, prose()), pl.Float64),
    )


def stored_answers(dataset: Dataset) -> pl.DataFrame:
    """Return each held-out prompt with its first accepted and its first rejected stored answer, null if none."""
    from pmpo_offline.evaluation.language.held_out import held_out_responses

    def first(accepted: bool) -> pl.Expr:
        return pl.col("completion").filter(pl.col("label") == accepted).first()

    return (
        held_out_responses(dataset)
        .group_by("prompt_id", maintain_order=True)
        .agg(pl.col("prompt").first(), accepted=first(True), rejected=first(False))
    )
