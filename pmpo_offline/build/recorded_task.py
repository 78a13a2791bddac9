"""The task of recorded episodes: its name, its reference scores, its actions, and whether the episodes fit it.

A data set is of a task here only if it was recorded in that very version of its environment: Hopper-v4 and D4RL's
hopper-v2 are other tasks than mujoco/hopper (Hopper-v5), keep the names of their own environments, and bring their own
reference scores or none.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import replace

import numpy as np

from pmpo_offline import data, tasks
from pmpo_offline.build.pipeline import name_parts
from pmpo_offline.data import Experience
from pmpo_offline.data.exchange.readers import Recorded, Source
from pmpo_offline.data.exchange.readers.arrays import is_one_hot
from pmpo_offline.data.mapping import slices
from pmpo_offline.data.minari_metadata import ENVIRONMENTS
from pmpo_offline.declarations import catalog
from pmpo_offline.runtime.errors import UserError, unknown

_HORIZON = 1000
_ENVIRONMENT = re.compile(r"(?:[\w.]+:)?((?:[\w:-]+/)?[\w:.-]+?)-v\d+", re.ASCII)
"""What Gymnasium calls its environments: [MODULE:][NAMESPACE/]NAME-vN; tasks here have no version."""
REACH = 1.0001
"""Largest action: 1, rounded to float32 and back."""


def task_of(found: Source, wanted: str | None) -> str:
    """Return the name of the task; `UserError` where the wanted one is unknown or not what was recorded."""
    environment = found.environment
    ours = found.task
    if not ours and environment and environment.plain and environment.horizon in (None, _HORIZON):
        ours = ENVIRONMENTS.get(environment.id)
    own = [environment.id] if environment else []
    if wanted is None:
        return ours or "/".join(own or [found.format, *name_parts(found.name)])
    if wanted not in tasks.TASKS and wanted not in own:
        named = _ENVIRONMENT.fullmatch(wanted)
        if named and named[1] not in tasks.TASKS:
            raise UserError(
                f"no task is called {wanted}; if that is an environment of Gymnasium, leave --task out, and score what "
                f"is trained on the episodes with evaluate RUN --environment {wanted}"
            )
        raise unknown("task", wanted, [*tasks.TASKS, *own])
    recorded_in = ours or (environment.id if environment else wanted)
    if wanted not in (recorded_in, *own):
        raise UserError(
            f"{found.name} was recorded in {environment.id if environment else recorded_in}"
            f"{'' if environment is None or environment.plain else ' with arguments of its own'}, which is not task "
            f"{wanted}: their scores cannot be mixed; leave --task out and it is called {recorded_in}"
        )
    return wanted


def references_of(found: Source, task: str) -> data.References | None:
    """Return the reference scores that the source brings, else those measured here for the task."""
    if found.references is not None and found.references.max > found.references.min:
        return found.references
    measured = catalog.references(task)
    return data.References.model_validate(measured) if measured else None


def check_task(found: Source, experience: Experience, name: str) -> None:
    """Raise `UserError` unless the episodes fit the task, where it is one that policies are scored on here."""
    if experience.action.dtype.kind == "i":
        if name in tasks.TASKS:
            raise UserError(
                f"{found.name} has discrete actions, and those of task {name} are numbers: leave --task out"
            )
        return
    reach = reach_of(experience)
    if name not in tasks.TASKS:
        if reach > REACH:
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
    if reach > REACH:
        raise UserError(f"{found.name}: actions reach {reach:g}, and those of task {name} lie within -1 and 1")


def reach_of(experience: Experience) -> float:
    """Return the largest magnitude of an action."""
    return max(float(np.abs(experience.action[rows]).max()) for rows in slices(len(experience.action)))


def choices_of(found: Source, recorded: Recorded, said: int | None) -> tuple[Recorded, int | None]:
    """Return the episodes, and the number of their discrete actions, None of continuous ones.

    Whole numbers that are stored as floats are discrete actions if `--actions` says so. Raises `UserError` if the
    number of actions is unknown or too small.
    """
    action, noted = recorded.experience.action, recorded.notes.get("actions")
    if action.dtype.kind != "i":
        numbers = action.argmax(axis=1, keepdims=True) if (is_chosen := is_one_hot(action)) else action
        whole = numbers.shape[1] == 1 and bool((numbers == np.floor(numbers)).all() and numbers.min() >= 0)
        if said is None:
            if whole and numbers.max() >= 1:
                what = f"one-hot rows of {action.shape[1]}" if is_chosen else f"whole numbers up to {action.max():g}"
                warnings.warn(
                    f"{found.name}: actions are {what} and are taken as continuous: if they are choices, add "
                    f"--actions {max(2, int(numbers.max()) + 1)}",
                    stacklevel=3,
                )
            return recorded, None
        if not whole:
            raise UserError(f"--actions {said}: the actions of {found.name} are {action.dtype}, not whole numbers")
        action = numbers.astype(np.int32)
        recorded = replace(recorded, experience=replace(recorded.experience, action=action))
    known, largest = said or (noted if isinstance(noted, int) else None), int(action.max())
    if known is None:
        raise UserError(
            f"{found.name}: actions are whole numbers up to {largest}: say how many there are, with --actions "
            f"{max(2, largest + 1)} or more"
        )
    if said is not None and isinstance(noted, int) and said != noted:
        raise UserError(f"--actions {said}: {found.name} says that there are {noted}")
    if largest >= known:
        raise UserError(f"{found.name}: an action is {largest}, and there are {known}, counted from 0")
    return recorded, known
