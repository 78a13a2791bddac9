"""The rules of every control task by its id."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pmpo_offline.runtime.errors import unknown
from pmpo_offline.tasks.control import dm_suite, gymnasium_v5
from pmpo_offline.tasks.control.simulation import Rules

RULES: dict[str, Callable[[], Rules]] = {
    **{f"dm_control/{name}": partial(dm_suite.rules, name) for name in dm_suite.TASKS},
    **{f"mujoco/{name}": partial(gymnasium_v5.rules, name) for name in gymnasium_v5.TASKS},
}
"""What makes the rules of a task, by its id."""


def rules(name: str) -> Rules:
    """Return the rules of the task `name`; `UserError` with the near misses if there is none.

    Each call loads the official environment anew: the rules hold it to draw beginnings and belong to one thread.
    """
    if name not in RULES:
        raise unknown("control task", name, RULES)
    return RULES[name]()
