"""What learns behaviours, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from torch import Tensor

from pmpo_offline.online.cloning import Cloning
from pmpo_offline.online.online_control import learner
from pmpo_offline.online.online_settings import ALGORITHMS
from pmpo_offline.online.ppo import PPO
from pmpo_offline.policies.behavior import BehaviorPolicy
from pmpo_offline.tasks.control import Rules


class Learner(Protocol):
    """What improves a behaviour policy by acting in a task; a pure function of the task, its seed and its plan."""

    frames: int
    """Control steps taken so far, of all episodes together."""
    planned: int
    """Control steps after which it is done; schedules (a falling learning rate) end there."""

    def advance(self) -> dict[str, float]:
        """Act for a while and learn from it once; return what is worth watching."""
        ...

    def policy(self) -> BehaviorPolicy:
        """Return the policy as it is now."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Return all that `restore` needs to go on as if nothing had happened (weights, moments, episodes, chance)."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` of a learner with the same arguments returned; `frames` too."""
        ...


LEARNERS: dict[str, Callable[[Rules, int, int | None], Learner]] = {
    "ppo": PPO,
    "clone": Cloning,
    **{algo: partial(learner, algo) for algo in ALGORITHMS},
}
"""What makes a learner, by algorithm: from rules, a seed and the planned control steps (None: its own plan)."""
