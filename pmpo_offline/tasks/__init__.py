"""What is to be solved: a task collects experience and scores a policy."""

from __future__ import annotations

from pmpo_offline.errors import unknown
from pmpo_offline.tasks.stacking.task import StackingTask

TASKS = {StackingTask.id: StackingTask}


def get(name: str) -> StackingTask:
    """Return the task of this name; `UserError` with the near misses if there is none."""
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name]()
