"""The shipped behaviours of control tasks: random actions, a medium or an expert policy, a training record.

The policies are small networks under `datasets/behaviors/<task>/`, trained by `pmpo-offline train-behavior`; they act
with the exploration that they had in training. A training record (`replay`) is the ladder of policies that a learner
went through on its way to medium: each plays equally many episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from pmpo_offline.declarations import catalog
from pmpo_offline.policies.behavior import BehaviorPolicy
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.tasks.task import Behavior


class ControlBehavior(Behavior):
    """A shipped behaviour, as declared in a dataset's TOML."""

    policy: Literal["random", "medium", "expert", "replay"]
    noise: float = Field(default=1.0, ge=0)
    """Deviation of the actions from the policy's mean, in multiples of its own."""


@dataclass(frozen=True)
class Actor:
    """A behaviour with its weights; without a policy its actions are uniformly random."""

    name: str
    share: float
    """Of all episodes; shares add up to one."""
    policy: BehaviorPolicy | None = None
    noise: float = 1.0


def weights_file(task: str, policy: str) -> Path:
    """Return the path of a task's shipped policy; `UserError` if it ships none of this kind."""
    path = catalog.root("datasets") / "behaviors" / task / f"{policy}.safetensors"
    if not path.is_file():
        raise UserError(
            f"task {task} ships no {policy} behaviour ({path} is missing): "
            f"make one with pmpo-offline train-behavior {task}"
        )
    return path


def actors(task: str, behaviors: Sequence[ControlBehavior]) -> list[Actor]:
    """Load the behaviours; a replay becomes one actor a policy of its ladder."""
    total = sum(behavior.weight for behavior in behaviors)
    found: list[Actor] = []
    for behavior in behaviors:
        name, share, noise = behavior.name, behavior.weight / total, behavior.noise
        if behavior.policy == "random":
            found.append(Actor(name, share))
        elif behavior.policy == "replay":
            ladder = BehaviorPolicy.load_ladder(weights_file(task, "replay"))
            found += [Actor(f"{name}-{i}", share / len(ladder), policy, noise) for i, policy in enumerate(ladder)]
        else:
            found.append(Actor(name, share, BehaviorPolicy.load(weights_file(task, behavior.policy)), noise))
    return found


@cache
def deal(shares: tuple[float, ...], episodes: int) -> list[int]:
    """Return the behaviour of each of the first episodes, so that after every one of them the shares are kept best.

    Each episode goes to the behaviour with the largest deficit: halves take turns, and of 200 episodes ten equal shares
    have 20 each.
    """
    played = np.zeros(len(shares))
    turns = []
    for i in range(episodes):
        turn = int(np.argmax(np.round(np.asarray(shares) * (i + 1) - played, 9)))
        played[turn] += 1
        turns.append(turn)
    return turns
