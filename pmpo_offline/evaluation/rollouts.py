"""Scores of a policy: its returns on held-out episodes, the same for every training run, and their normalized scale."""

from __future__ import annotations

import importlib.metadata
import os
from typing import Any, TypeVar, cast

import numpy as np
import polars as pl

from pmpo_offline import tasks
from pmpo_offline.data import References
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.runtime.errors import UserError

N = TypeVar("N", bound=Any)


def normalized(returns: N, low: N, high: N) -> N:
    """Return 100 (returns - low) / (high - low), never clipped, of numbers, arrays or columns.

    Fu et al., *D4RL*, arXiv 2004.07219, section 5; Minari's `get_normalized_score` is a hundredth of it.
    """
    return cast(N, 100 * (returns - low) / (high - low))


def check_versions(name: str, references: References | None) -> None:
    """Refuse to compare returns simulated here with references of another version of the simulator.

    Args:
        name: the dataset, for the message.
        references: of the dataset; packages that are not installed are ignored.

    Raises:
        UserError: a package that the references name is installed in another version.
    """
    for package, version in (references.versions if references else {}).items():
        try:
            installed = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
        if installed != version:
            raise UserError(
                f"{name}: its reference scores are of {package} {version}, and returns of the installed {installed} "
                f"cannot be compared with them: install {package}=={version}, or build the dataset again with what is "
                "installed"
            )


def check_rewarded(name: str, task: str) -> None:
    """Raise `UserError` if a dataset's task has no reward function, as for imported labels."""
    from pmpo_offline.tasks import language

    if task not in language.names():
        raise UserError(f"{name}: its task {task} has no reward function, and nothing can be scored")


def check_simulated(name: str, task: str) -> None:
    """Raise `UserError` if no simulator here plays a dataset's task, as for imports from elsewhere."""
    if task not in tasks.TASKS:
        raise UserError(
            f"{name}: nothing here simulates its task {task}, and no policy can be scored: train on it only"
        )


def evaluate(policy: MixturePolicy, task: str, *, episodes: int = 100, workers: int | None = None) -> pl.DataFrame:
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
