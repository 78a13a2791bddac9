"""How PPO learns each task: steps, rates, and what is added to a reward that chance hardly ever meets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """How a task is learned."""

    frames: int
    """Control steps, of all episodes together, evaluations not counted."""
    discount: float = 0.99
    """A decision."""
    repeat: int = 1
    """Control steps a decision in training; whoever evaluates decides at every one."""
    std: float = 0.6
    """With which exploration begins."""
    learning_rate: float = 5e-4
    episodes: int = 64
    """Played at once."""
    decisions: int = 64
    """In every episode between two improvements."""
    epochs: int = 5
    minibatch: int = 1024
    bonus: Callable[[Array], Array] | None = None
    """(m,) from observations (m, O): added to the reward in training alone."""


def near_target(observation: Array) -> Array:
    """Return a bonus for a reacher's finger near its target, else it would meet the sparse reward by chance only."""
    return -np.hypot(observation[:, 2], observation[:, 3])


def going_upright(observation: Array) -> Array:
    """Return a bonus for a hopper's height and, once it is up, its speed: lying, it would never meet the reward."""
    up = np.clip((0.7 + observation[:, 0]) / 0.6, 0, 1)  # the torso is 1 m above what is observed
    return up * (0.2 + 0.3 * np.clip(observation[:, 6] / 2, 0, 1))


PLANS = {
    "dm_control/cartpole-swingup": Plan(1_500_000, repeat=2),
    "dm_control/cheetah-run": Plan(12_000_000, repeat=2, episodes=128, minibatch=2048, learning_rate=1e-3),
    "dm_control/walker-walk": Plan(6_000_000, repeat=2, episodes=128, learning_rate=1e-3, std=1.0),
    "dm_control/finger-spin": Plan(4_000_000, episodes=128, minibatch=2048, learning_rate=1e-3),
    "dm_control/reacher-easy": Plan(
        4_000_000, repeat=2, episodes=128, epochs=10, learning_rate=7e-4, std=1.0, bonus=near_target
    ),
    "dm_control/hopper-hop": Plan(13_000_000, repeat=2, episodes=128, epochs=8, std=0.8, bonus=going_upright),
    "mujoco/halfcheetah": Plan(8_000_000, episodes=128, minibatch=2048),
    "mujoco/hopper": Plan(3_000_000, minibatch=256, epochs=10, learning_rate=3e-4),
    "mujoco/walker2d": Plan(3_000_000, minibatch=256, epochs=10, learning_rate=3e-4),
}
"""By task, as its shipped policies were learned."""
