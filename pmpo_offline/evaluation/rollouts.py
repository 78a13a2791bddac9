"""Scores of a policy: its returns on held-out episodes, the same for every training run, and their normalized scale."""

from __future__ import annotations

import importlib.metadata
import os
from contextlib import suppress
from typing import Any, TypeVar, cast

import numpy as np
import polars as pl

from pmpo_offline import tasks
from pmpo_offline.data import Metadata
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.runtime.errors import UserError

N = TypeVar("N", bound=Any)


def normalized(returns: N, low: N, high: N) -> N:
    """Return 100 (returns - low) / (high - low), never clipped, of numbers, arrays or columns.

    Fu et al., *D4RL*, arXiv 2004.07219, section 5; Minari's `get_normalized_score` is a hundredth of it.
    """
    return cast(N, 100 * (returns - low) / (high - low))


def check_scorable(dataset: Metadata) -> None:
    """Raise `UserError` if policies cannot be scored on a dataset's task here, or not compared with its references.

    An imported dataset's task may have no simulator, or no reward function. Returns of a simulator are compared with
    references of the same version only; packages that are not installed are ignored.
    """
    for package, version in (dataset.references.versions if dataset.references else {}).items():
        with suppress(importlib.metadata.PackageNotFoundError):
            if (installed := importlib.metadata.version(package)) != version:
                raise UserError(
                    f"{dataset.id}: its reference scores are of {package} {version}, and returns of the installed "
                    f"{installed} cannot be compared with them: install {package}=={version}, or build the dataset "
                    "again with what is installed"
                )
    if dataset.kind != "responses":
        if dataset.task not in tasks.TASKS:
            raise UserError(
                f"{dataset.id}: nothing here simulates its task {dataset.task}, and no policy can be scored: train on "
                "it only"
            )
        return
    from pmpo_offline.tasks import language

    if dataset.task not in language.names():
        raise UserError(f"{dataset.id}: its task {dataset.task} has no reward function, and nothing can be scored")


def evaluate(policy: MixturePolicy, task: str, *, episodes: int = 100, workers: int | None = None) -> pl.DataFrame:
    """Score a stacked policy on the task's held-out layouts.

    Args:
        policy: R stacked policies.
        task: the task's id, as in a dataset's metadata.
        episodes: layouts, the same ones for every run and every policy.
        workers: native threads that simulate; default one per core.

    Returns:
        One row a run and episode: run, episode (int32), return (float64), success (bool), length (int32), layout (str).
    """
    threads = workers or os.cpu_count() or 1
    outcome, layouts = tasks.get(task).score(policy, episodes, threads)
    return pl.DataFrame(
        {
            "run": np.repeat(np.arange(policy.runs, dtype=np.int32), episodes),
            "episode": np.tile(np.arange(episodes, dtype=np.int32), policy.runs),
            "return": outcome.returns,
            "success": outcome.success,
            "length": outcome.length.astype(np.int32),
            "layout": layouts * policy.runs,
        }
    )
