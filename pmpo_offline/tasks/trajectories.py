"""Trajectories of scored episodes, thinned while they are played, and how a task draws its states.

They are for reports alone: a policy is scored by all of its steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pmpo_offline.tasks.simulated import Array, Index, Step

POINTS = 32
"""Steps of an episode that are recorded, beside its last one; even."""


@dataclass(frozen=True)
class Trajectories:
    """Steps of n episodes, at most P each: evenly spaced from the first on, and the last."""

    step: NDArray[np.int32]
    """(n, P), counted from 1, ascending; 0 where an episode has no more."""
    reward: NDArray[np.float32]
    """(n, P), of the step alone."""
    action: NDArray[np.float32]
    """(n, P, A)."""
    observation: NDArray[np.float32]
    """(n, P, O), after the step."""


class Recorder:
    """Record trajectories of episodes that are played side by side: call it as a `simulated.Watch`.

    Every step at first; whenever the room is full, every second of the recorded steps is discarded, and from then on
    half as many are recorded. Episodes that are over keep what they have.
    """

    def __init__(self, episodes: int, action_dim: int, observation_dim: int) -> None:
        shape = episodes, POINTS + 1
        action, observation = (np.zeros((*shape, width), np.float32) for width in (action_dim, observation_dim))
        self.trajectories = Trajectories(np.zeros(shape, np.int32), np.zeros(shape, np.float32), action, observation)
        self._every = 1

    def __call__(self, active: Index, t: int, action: Array, step: Step) -> None:
        """Record a step of the episodes `active`, if it is one of those that are kept."""
        into, half = self.trajectories, POINTS // 2
        if t == POINTS * self._every:
            for array in (into.step, into.reward, into.action, into.observation):
                array[active, :half] = array[active, :POINTS:2]
            into.step[active, half:] = 0
            self._every *= 2
        place, beyond = divmod(t, self._every)
        kept = step.done if beyond else np.ones(len(active), np.bool_)
        if not kept.any():
            return
        rows = active[kept], place + (beyond > 0)
        into.step[rows], into.reward[rows] = t + 1, step.reward[kept]
        into.action[rows], into.observation[rows] = action[kept], step.observation[kept]


class Figure(NamedTuple):
    """A part of a picture: a polygon with a rim; one of two points is a stroke with round ends."""

    kind: str
    """Its colour by name: red, green, blue, with "-top" for what is lit from above; hand, body or floor."""
    points: NDArray[np.float64]
    """(P, 2) metres, to the right and up."""
    width: float = 0.0
    """Of the rim, metres."""


Picture = Sequence[Figure]
"""A drawn state: later figures cover earlier ones."""
