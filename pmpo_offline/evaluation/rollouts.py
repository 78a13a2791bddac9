"""Scores of a policy: its returns on held-out episodes, the same for every training run, and their normalized scale."""

from __future__ import annotations

import importlib.metadata
import os
from contextlib import suppress

import gymnasium
import numpy as np
import polars as pl

from pmpo_offline import tasks
from pmpo_offline.data import Metadata
from pmpo_offline.policies import Act, FunctionPolicy, Policy
from pmpo_offline.runtime.arguments import checked
from pmpo_offline.runtime.errors import UserError, unknown
from pmpo_offline.runtime.hashing import version
from pmpo_offline.tasks import Task
from pmpo_offline.tasks.environment import Environment, EnvironmentTask
from pmpo_offline.tasks.trajectories import Trajectories
from pmpo_offline.training.control.trainer import Trained


def check_scorable(dataset: Metadata) -> None:
    """Raise `UserError` if policies cannot be scored on a dataset's task here, or not compared with its references.

    An imported dataset's task may have no simulator, or no reward function. Returns of a simulator are compared with
    references of the same version only; packages that are not installed are ignored.
    """
    for package, wanted in (dataset.references.versions if dataset.references else {}).items():
        with suppress(importlib.metadata.PackageNotFoundError):
            if (installed := version(package)) != wanted:
                raise UserError(
                    f"{dataset.id}: its reference scores are of {package} {wanted}, and returns of the installed "
                    f"{installed} cannot be compared with them: install {package}=={wanted}, or build the dataset "
                    "again with what is installed"
                )
    if dataset.kind != "responses":
        if dataset.task not in tasks.TASKS:
            raise UserError(
                f"{dataset.id}: nothing here simulates its task {dataset.task}, which scores need: give evaluate an "
                "--environment of Gymnasium, or make one a task of bench (docs/howto/task.md)"
            )
        return
    from pmpo_offline.tasks import language

    if dataset.task not in language.names():
        raise UserError(f"{dataset.id}: its task {dataset.task} has no reward function, and nothing can be scored")


@checked()
def evaluate(
    policy: Policy | Act | Trained, task: str | Task | Environment, *, episodes: int = 100, workers: int | None = None
) -> pl.DataFrame:
    """Score a policy on held-out episodes of a task.

    Args:
        policy: what `train` returns, R stacked policies (`load_policy`), or a function from observations (n, O) to
            actions (n, A), which is one run.
        task: the task's id, as in a dataset's metadata; a task; or a Gymnasium environment, or its registered id, as in
            "Pendulum-v1" (`module:Name-v0` imports the module first).
        episodes: layouts, the same ones for every run and every policy.
        workers: native threads that simulate; default one per core.

    Returns:
        One row a run and episode: run, episode (int32), return (float64), success (bool), length (int32), layout (str).

    Raises `UserError` for an unknown task, and for a policy of other observations or actions than the task's.
    """
    if episodes < 1 or (workers is not None and workers < 1):
        raise UserError(f"evaluate: episodes and workers are 1 or more, not {min(episodes, workers or episodes)}")
    threads = workers or os.cpu_count() or 1
    played = _task(task)
    if isinstance(policy, Trained):
        policy = policy.policy
    if not isinstance(policy, Policy):
        if not callable(policy):
            kind = type(policy).__name__
            raise UserError(f"expected a policy or a function from observations (n, O) to actions (n, A), not {kind}")
        policy = FunctionPolicy(policy, played.action_dim)
    return score(policy, played, episodes, threads)[0]


def score(policy: Policy, task: Task, episodes: int, threads: int) -> tuple[pl.DataFrame, Trajectories | None]:
    """Play held-out episodes: return the frame of `evaluate`, and the trajectories behind its rows, in their order.

    Raises `UserError` for a policy of other observations or actions than the task's.
    """
    _check_widths(policy, task)
    outcome, layouts = task.score(policy, episodes, threads)
    frame = pl.DataFrame(
        {
            "run": np.repeat(np.arange(policy.runs, dtype=np.int32), episodes),
            "episode": np.tile(np.arange(episodes, dtype=np.int32), policy.runs),
            "return": outcome.returns,
            "success": outcome.success,
            "length": outcome.length.astype(np.int32),
            "layout": layouts * policy.runs,
        }
    )
    return frame, outcome.trajectories


def _check_widths(policy: Policy, task: Task) -> None:
    """Raise `UserError` if a policy was trained on other observations or actions than a task's."""
    if isinstance(policy, FunctionPolicy):
        return  # its actions are checked one by one
    widths = {
        "observations": (policy.observation_mean.shape[-1], task.observation_dim),
        "actions": (policy.action_dim, task.action_dim),
    }
    for what, (learned, wanted) in widths.items():
        if learned != wanted:
            raise UserError(f"the {what} of the policy have {learned} numbers, and those of {task.id} have {wanted}")


def _task(given: str | Task | Environment) -> Task:
    if isinstance(given, gymnasium.Env):
        return EnvironmentTask(given)
    if not isinstance(given, str):
        if not hasattr(given, "action_dim"):
            kind = type(given).__name__
            raise UserError(f"evaluate: expected a task, its id, or a Gymnasium environment for task, not {kind}")
        return given
    if given in tasks.TASKS or given.startswith(tuple(f"{name.partition('/')[0]}/" for name in tasks.TASKS)):
        return tasks.get(given)
    if given in gymnasium.registry or ":" in given:
        return EnvironmentTask(given)
    raise UserError(f"{unknown('task', given, tasks.TASKS)}; or pass a Gymnasium environment, or its registered id")
