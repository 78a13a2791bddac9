"""What behaviours of each task should come to."""

from __future__ import annotations

from pmpo_offline.runtime.errors import unknown
from pmpo_offline.tasks.control import RULES

TARGETS = {
    "dm_control/cartpole-swingup": 860.0,
    "dm_control/cheetah-run": 750.0,
    "dm_control/walker-walk": 930.0,
    "dm_control/finger-spin": 800.0,
    "dm_control/reacher-easy": 970.0,
    "dm_control/hopper-hop": 100.0,
    "mujoco/halfcheetah": 5000.0,
    "mujoco/hopper": 2500.0,
    "mujoco/walker2d": 3000.0,
}
"""The return that an expert should reach, and by which medium is defined."""
MEDIUM = 0.4
"""How far from random to the target a medium policy is."""


def task_id(name: str) -> str:
    """Return the id of the control task that `name` names with or without its namespace.

    Raises:
        UserError: there is none; with the near misses.
    """
    for known in RULES:
        if name in (known, known.partition("/")[2]):
            return known
    raise unknown("control task", name, RULES if "/" in name else [known.partition("/")[2] for known in RULES])
