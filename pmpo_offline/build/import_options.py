"""What an import is of and called: its task, reference scores, default label and id, and what it cannot be.

A data set is of a task here only if it was recorded in that very version of its environment: Hopper-v4 and D4RL's
hopper-v2 are other tasks than mujoco/hopper (Hopper-v5), go by the names of their own environments, and bring their own
reference scores or none.
"""

from __future__ import annotations

import re
import warnings

import numpy as np

from pmpo_offline import data, tasks
from pmpo_offline.data import Experience, LabelRule
from pmpo_offline.data.exchange.readers import Environment, Recorded, Source
from pmpo_offline.declarations import catalog
from pmpo_offline.runtime.errors import UserError, unknown

ENVIRONMENTS = {
    "HalfCheetah-v5": "mujoco/halfcheetah",
    "Hopper-v5": "mujoco/hopper",
    "Walker2d-v5": "mujoco/walker2d",
}
"""The task here that an environment of another library is, to the version."""
_HORIZON = 1000
_REACH = 1.0001
"""How far actions may go, rounded to float32 and back by whoever stored them."""


def task_of(found: Source, asked: str | None) -> str:
    """Return the name of the task; `UserError` where the asked one is unknown or not what was recorded."""
    environment = found.environment
    is_ours = found.task or (None if environment is None else _ours(environment))
    if asked is None:
        return is_ours or (environment.id if environment else base_id(found))
    own = [environment.id] if environment else []
    if asked not in tasks.TASKS and asked not in own:
        raise unknown("task", asked, [*tasks.TASKS, *own])
    recorded_in = is_ours or (environment.id if environment else asked)
    if asked not in (recorded_in, *own):
        raise UserError(
            f"{found.name} was recorded in {environment.id if environment else recorded_in}"
            f"{'' if environment is None or environment.plain else ' with arguments of its own'}, which is not task "
            f"{asked}: their scores cannot be mixed; leave --task out and it is called {recorded_in}"
        )
    return asked


def _ours(environment: Environment) -> str | None:
    """Return the task that an environment is: of the same version, with no arguments and no horizon of its own."""
    if environment.plain and environment.horizon in (None, _HORIZON):
        return ENVIRONMENTS.get(environment.id)
    return None


def references_of(found: Source, task: str) -> data.References | None:
    """Return the reference scores that the source brings, else those measured here for the task."""
    if found.references is not None and found.references.max > found.references.min:
        return found.references
    measured = catalog.references(task)
    return data.References.model_validate(measured) if measured else None


def check_task(found: Source, experience: Experience, name: str) -> None:
    """Raise `UserError` unless the episodes fit the task, where it is one that policies are scored on here."""
    reach = float(np.abs(experience.action).max())
    if name not in tasks.TASKS:
        if reach > _REACH:
            warnings.warn(
                f"{found.name}: actions reach {reach:g}; they are stored as they are, and policies here are evaluated, "
                "and candidates drawn, within -1 and 1",
                stacklevel=3,
            )
        return
    task = tasks.get(name)
    has = (experience.observation.shape[1], experience.action.shape[1])
    needs = (task.observation_dim, task.action_dim)
    if has != needs:
        raise UserError(
            f"{found.name} has observations of {has[0]} numbers and actions of {has[1]}, and task {name} has "
            f"{needs[0]} and {needs[1]}: it is of another task"
        )
    if reach > _REACH:
        raise UserError(f"{found.name}: actions reach {reach:g}, and those of task {name} lie within -1 and 1")


def default_label(recorded: Recorded) -> LabelRule:
    """Return how an import is labelled unless asked otherwise."""
    success = recorded.experience.success
    if recorded.notes["success"] and success.any() and not success.all():
        return LabelRule.parse("success")
    return LabelRule.parse("return:q0.5" if recorded.notes["rewards"] else "reward")


def check_label(found: Source, recorded: Recorded, rule: LabelRule, default: LabelRule) -> None:
    """Raise `UserError` for labels that the source has no ground for."""
    if rule.score == "column":
        raise UserError("an import has no column of scores: label it by return, return_to_go, reward or advantage")
    if rule.score == "success" and not recorded.notes["success"]:
        raise UserError(f"{found.name} does not say which episodes succeeded: label it by {default}")
    if rule.score != "success" and not recorded.notes["rewards"]:
        if rule != default:
            raise UserError(
                f"{found.name} holds no rewards, from which {rule.score} would follow: add an array rewards, "
                "one number a step"
            )
        warnings.warn(f"{found.name} holds no rewards: nothing is labelled", stacklevel=3)
    if rule.score == "q_rank" and np.abs(recorded.experience.action).max() > _REACH:
        raise UserError(
            f"{found.name}: candidates are drawn within -1 and 1, and its actions are not: use another label"
        )


def base_id(found: Source) -> str:
    """Return the id that a source has here: its format, then its own name as far as ids allow."""
    *space, name = _words(found)
    return "/".join([found.format, *space, name if re.search(r"-v\d+$", name) else f"{name}-v0"])


def _words(found: Source) -> list[str]:
    parts = [re.sub(r"[^A-Za-z0-9_-]+", "-", part).strip("-_") for part in found.name.split("/")]
    return [part for part in parts if part] or ["unnamed"]
