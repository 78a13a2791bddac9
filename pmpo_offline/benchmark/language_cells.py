"""Train and evaluate language models: run after run, several side by side in processes of their own.

```
<output>/checkpoints/<key>/run-<seed>/     what a run's training left, and `scores.parquet` once it is evaluated
```
A run is one adapter with one seed. It starts from the model that made the dataset's responses and is evaluated on the
same held-out prompts, with the same random numbers, as every other. What a killed benchmark had finished is not run
again.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import torch

from pmpo_offline.benchmark.job import Job, Learn, base_model
from pmpo_offline.benchmark.results import Results, write_whole
from pmpo_offline.benchmark.suite import Settings
from pmpo_offline.data import Dataset
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.processes import processes

AT_ONCE = 4
"""Processes where nobody says how many: each holds a model, and what its training needs."""


@dataclass(frozen=True)
class Run:
    """One training run with its evaluation: all that another process needs to know."""

    dataset: Dataset
    algorithm: AlgorithmDeclaration
    settings: Settings
    seed: int
    shuffled: bool
    overrides: Mapping[str, Any]
    episodes: int
    folder: Path
    home: Path | None

    @property
    def scores(self) -> Path:
        """Where its raw scores are, once it is finished."""
        return self.folder / "scores.parquet"


@contextmanager
def side_by_side(
    wanted: list[tuple[Job, dict[str, Settings]]],
    results: Results,
    workers: int | None,
    home: Path | None,
) -> Iterator[Learn]:
    """Hand out all the missing runs of a condition at once, and yield the function that takes a job's scores back.

    Args:
        wanted: the jobs, each with the settings of its missing rows by key.
        results: where the runs keep what they need to go on.
        workers: processes; default one a core and `AT_ONCE` at most. With one, or with a GPU, there are no others.
        home: where datasets, models and reference caches are.
    """
    runs = {
        (key, seed): _run(job, settings, seed, results.checkpoint(key), home)
        for job, rows in wanted
        for key, settings in rows.items()
        for seed in range(job.suite.seeds)
    }
    unfinished = {name: run for name, run in runs.items() if not run.scores.exists()}
    done = len(runs) - len(unfinished)
    at_once = min(workers or min(AT_ONCE, os.cpu_count() or 1), len(unfinished))

    def learn(finish: Mapping[tuple[str, int], Callable[[], list[str]]]) -> Learn:
        def take(job: Job, missing: dict[str, Settings]) -> Iterator[tuple[str, pl.DataFrame]]:
            nonlocal done
            failure: PmpoOfflineError | None = None
            for key in missing:
                mine = [(key, seed) for seed in range(job.suite.seeds)]
                try:
                    for name in mine:
                        if name in finish:
                            for message in finish[name]():
                                warnings.warn(message, stacklevel=2)
                            done += 1
                        progress.report("training runs", done, len(runs))
                except PmpoOfflineError as error:  # one setting may diverge where others do not
                    failure = failure or error
                    continue
                yield key, pl.concat([pl.read_parquet(runs[name].scores, glob=False) for name in mine])
                results.discard_checkpoint(key)
            if failure is not None:
                raise failure

        return take

    if at_once <= 1 or torch.cuda.is_available():
        yield learn({name: partial(_here, run) for name, run in unfinished.items()})
        return
    with processes(at_once, "trained a language model") as submit:
        threads = max(1, (os.cpu_count() or 1) // at_once)
        tasks = {name: submit(_elsewhere, run, threads) for name, run in unfinished.items()}
        yield learn({name: task.result for name, task in tasks.items()})


def _run(job: Job, settings: Settings, seed: int, checkpoint: Path, home: Path | None) -> Run:
    cell = job.cell
    folder = checkpoint / f"run-{seed}"
    return Run(
        job.dataset, cell.algorithm, settings, seed, cell.shuffled, job.overrides, job.suite.episodes, folder, home
    )


def _here(run: Run) -> list[str]:
    execute(run)
    return []


def _elsewhere(run: Run, threads: int) -> list[str]:
    """Execute a run in this process, which is another than the caller's; return the warnings that it should give."""
    torch.set_num_threads(threads)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        execute(run)
    return [str(each.message) for each in said if each.category is UserWarning]


def execute(run: Run) -> None:
    """Train one run and write its raw scores; a training that was interrupted goes on, and a finished one stands."""
    from pmpo_offline.evaluation.language import evaluate_language
    from pmpo_offline.evaluation.language.held_out import held_out_prompts
    from pmpo_offline.evaluation.language.perplexity import perplexity, prose
    from pmpo_offline.policies.language.model import load_adapter, open_model
    from pmpo_offline.tasks.language import model_directory
    from pmpo_offline.training.language import train_language

    trained = train_language(
        run.dataset,
        run.algorithm,
        settings=run.settings,
        seed=run.seed,
        output=run.folder,
        home=run.home,
        shuffle_labels=run.shuffled,
        overrides=run.overrides,
    )
    directory = model_directory(base_model(run.dataset), run.home)
    reference = open_model(directory)
    policy = load_adapter(reference, trained.adapter)
    # One sample a prompt as far as they go: another prompt says more than another sample.
    samples = -(-run.episodes // len(held_out_prompts(run.dataset)))
    scores = evaluate_language(
        policy,
        reference,
        run.dataset,
        prompts=-(-run.episodes // samples),
        samples=samples,
    )
    if scores["return"].is_null().any():
        raise UserError(f"{run.dataset.metadata.id}: its task has no reward function, so that nothing can be scored")
    scores = scores.head(run.episodes).with_row_index("episode")
    surprise = perplexity(policy, prose())
    write_whole(
        run.scores,
        scores.with_columns(
            seed=pl.lit(run.seed),
            layout=pl.format("prompt {}", "prompt_id"),
            perplexity=pl.lit(surprise and surprise.value, pl.Float64),
            beta_min=pl.lit(trained.bound, pl.Float64),
        ),
    )
