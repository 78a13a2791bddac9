"""How good a policy is: every training run plays the same held-out episodes, and every episode's score is kept."""

from __future__ import annotations

import os

import numpy as np
import polars as pl

from pmpo_offline import tasks
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.runtime.errors import UserError


def check_simulated(name: str, task: str) -> None:
    """Raise `UserError` where nothing here plays the task of a dataset, as of an import from elsewhere."""
    if task not in tasks.TASKS:
        raise UserError(
            f"{name}: nothing here simulates its task {task}, and no policy can be scored: train on it only"
        )


def evaluate(
    policy: MixturePolicy,
    task: str,
    *,
    episodes: int = 100,
    workers: int | None = None,
) -> pl.DataFrame:
    """Score a stacked policy on the task's held-out layouts.

    Args:
        policy: R stacked policies.
        task: the task's id, as in a dataset's metadata.
        episodes: layouts, the same ones for every run and every policy.
        workers: native threads that simulate; default one a core.

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
