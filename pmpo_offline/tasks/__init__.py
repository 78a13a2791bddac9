"""What is to be solved: a task collects experience and scores a policy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pmpo_offline.data.experience import Experience
from pmpo_offline.runtime.errors import unknown
from pmpo_offline.tasks.bandit import FUNCTIONS, BanditTask
from pmpo_offline.tasks.bandit.gmm import GMM
from pmpo_offline.tasks.control import RULES
from pmpo_offline.tasks.control.task import ControlTask
from pmpo_offline.tasks.stacking.task import StackingTask
from pmpo_offline.tasks.task import Outcome, Scored, Task

TASKS: dict[str, Callable[[], Task]] = {
    StackingTask.id: StackingTask,
    **{f"bandit/{function.name}": partial(BanditTask, function) for function in FUNCTIONS.values()},
    "bandit/gmm": partial(BanditTask, GMM, 2),
    **{name: partial(ControlTask, name) for name in RULES},
}
"""What makes a task, by its id."""


def get(name: str) -> Task:
    """Return the task of this name; `UserError` with the near misses if there is none."""
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name]()


__all__ = ["TASKS", "Experience", "Outcome", "Scored", "Task", "get"]
