"""Train and evaluate language models: several runs side by side, each in a process of its own.

```
<output>/checkpoints/<key>-<model>/run-<seed>/     a training's files, and `scores.parquet` once it is evaluated
```
A run is one adapter with one seed. It starts from the model that made the dataset's responses, whose content hash is in
the folder's name, and is evaluated on the same held-out prompts, with the same random numbers, as every other. Finished
runs of a killed benchmark are not repeated.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl
import torch

from pmpo_offline.benchmark.results import read_sealed, write_sealed
from pmpo_offline.benchmark.runner import Learn, Missing, Plan
from pmpo_offline.benchmark.suite import Job, Settings
from pmpo_offline.data import Dataset
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import PmpoOfflineError
from pmpo_offline.runtime.processes import processes

SHOWN = 12
"""Held-out prompts of a run whose answers are kept for the report."""
AT_ONCE = 4
"""Processes by default: each holds a model, and what its training needs."""


@dataclass(frozen=True)
class Run:
    """One training run with its evaluation, as it is sent to another process."""

    job: Job
    settings: Settings
    seed: int
    folder: Path
    home: str | Path | None

    @property
    def scores(self) -> Path:
        """The file of its raw scores; it exists once the run is finished."""
        return self.folder / "scores.parquet"


@contextmanager
def side_by_side(wanted: Sequence[tuple[Job, Missing]], plan: Plan, model: str | None) -> Iterator[Learn]:
    """Start all missing runs of a condition at once, and yield the function that collects a job's scores.

    Args:
        wanted: the jobs with their missing rows.
        plan: its `workers` are processes; default one a core and `AT_ONCE` at most. One, or a GPU: this process alone.
        model: content hash of the model that training starts from; None if it is unknown.
    """
    suffix = "" if model is None else f"-{model[:16]}"
    runs = {
        (key, seed): Run(job, settings, seed, plan.results.checkpoint(key + suffix) / f"run-{seed}", plan.home)
        for job, missing in wanted
        for key, settings in missing.items()
        for seed in job.seeds
    }
    unfinished = {name: run for name, run in runs.items() if not run.scores.exists()}
    finish: dict[tuple[str, int], Callable[[], list[str] | None]] = {}
    done = len(runs) - len(unfinished)

    def learn(job: Job, missing: Missing) -> Iterator[tuple[str, pl.DataFrame]]:
        nonlocal done
        failure: PmpoOfflineError | None = None
        for key in missing:
            mine = [(key, seed) for seed in job.seeds]
            try:
                for name in mine:
                    if name in finish:
                        for message in finish[name]() or ():
                            warnings.warn(message, stacklevel=2)
                        done += 1
                    progress.report("training runs", done, len(runs))
            except PmpoOfflineError as error:  # one setting may diverge where others do not
                failure = failure or error
                continue
            yield key, pl.concat([read_sealed(runs[name].scores) for name in mine])
            plan.results.discard_checkpoint(key)
        if failure is not None:
            raise failure

    at_once = min(plan.workers or min(AT_ONCE, os.cpu_count() or 1), len(unfinished))
    if at_once <= 1 or torch.cuda.is_available():
        finish |= {name: partial(execute, run) for name, run in unfinished.items()}
        yield learn
        return
    with processes(at_once, "trained a language model") as submit:
        threads = max(1, (os.cpu_count() or 1) // at_once)
        finish |= {name: submit(_elsewhere, run, threads).result for name, run in unfinished.items()}
        yield learn


def _elsewhere(run: Run, threads: int) -> list[str]:
    """Execute a run in a worker process; return its warnings, which the caller repeats."""
    torch.set_num_threads(threads)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        execute(run)
    return [str(warning.message) for warning in caught if warning.category is UserWarning]


def execute(run: Run) -> None:
    """Train one run and write its raw scores; an interrupted training continues, and a finished one is not repeated."""
    from pmpo_offline.evaluation.language import Sampling, evaluate_language
    from pmpo_offline.evaluation.language.held_out import held_out_prompts
    from pmpo_offline.evaluation.language.perplexity import perplexity, prose
    from pmpo_offline.policies.language.model import load_adapter, open_model
    from pmpo_offline.tasks.language import model_directory
    from pmpo_offline.training.language import train_language

    job, dataset, episodes = run.job, run.job.dataset, run.job.suite.episodes
    trained = train_language(
        dataset,
        job.cell.algorithm,
        settings=run.settings,
        seed=run.seed,
        output=run.folder,
        home=run.home,
        shuffle_labels=job.cell.shuffled,
        overrides=job.overrides,
    )
    reference = open_model(model_directory(job.model, run.home))
    policy = load_adapter(reference, trained.adapter)
    # One sample a prompt as long as there are prompts: another prompt is more informative than another sample.
    samples = -(-episodes // len(held_out_prompts(dataset)))
    sampling = Sampling(samples, prompts=-(-episodes // samples))
    scores = evaluate_language(policy, reference, dataset, sampling).head(episodes)
    answers = stored_answers(dataset)
    scores = scores.with_row_index("episode").join(answers, on="prompt_id", how="left", maintain_order="left")
    scores = scores.with_columns(
        learned=pl.when(pl.col("episode") < SHOWN).then("completion"),
        seed=pl.lit(run.seed),
        layout=pl.format("prompt {}", "prompt_id"),
        perplexity=pl.lit(perplexity(policy, prose()), pl.Float64),
        beta_min=pl.lit(trained.bound, pl.Float64),
    )
    write_sealed(run.scores, scores, {})


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
