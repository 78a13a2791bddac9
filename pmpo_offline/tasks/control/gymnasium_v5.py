"""Gymnasium's HalfCheetah, Hopper and Walker2d, version 5: its models and initial states, the rest is batched.

They share one form: observed are all positions but the horizontal one, and the velocities; the reward is the distance
covered a second, plus 1 while healthy, less a cost of control; being unhealthy ends the episode.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pmpo_offline.tasks.control.simulation import Rules, State, quiet
from pmpo_offline.tasks.simulated import Array, Bools


@dataclass(frozen=True)
class Runner:
    """The differences between the tasks."""

    official: str
    """The name in Gymnasium's registry."""
    control_cost: float
    """Cost of the action's squared norm."""
    fastest: float = np.inf
    """Velocities are observed clipped to this, in m/s or rad/s."""
    healthy: Callable[[State], Bools] | None = None
    """(m,) whether the episode may continue; None if it always may."""


def hopper_healthy(now: State) -> Bools:
    """Return whether the hopper is upright, leans by less than 0.2 rad and all of it stays within 100."""
    height, angle = now.qpos[:, 1], now.qpos[:, 2]
    tame = (np.abs(np.concatenate([now.qpos[:, 2:], now.qvel], axis=1)) < 100).all(axis=1)
    return np.asarray(tame & (height > 0.7) & (np.abs(angle) < 0.2))


def walker2d_healthy(now: State) -> Bools:
    """Return whether the walker's torso is between 0.8 and 2 m high and leans by less than 1 rad."""
    height, angle = now.qpos[:, 1], now.qpos[:, 2]
    return np.asarray((height > 0.8) & (height < 2) & (np.abs(angle) < 1))


TASKS = {
    "halfcheetah": Runner("HalfCheetah-v5", control_cost=0.1),
    "hopper": Runner("Hopper-v5", control_cost=1e-3, fastest=10, healthy=hopper_healthy),
    "walker2d": Runner("Walker2d-v5", control_cost=1e-3, fastest=10, healthy=walker2d_healthy),
}
"""The tasks by the name that dataset ids give them."""


def rules(name: str) -> Rules:
    """Return the rules of `mujoco/<name>`; `KeyError` if the name is not in `TASKS`."""
    import gymnasium  # slow to import

    runner = TASKS[name]
    with quiet():
        environment: Any = gymnasium.make(runner.official).unwrapped
    period, healthy = environment.dt, runner.healthy

    def begin(seed: int) -> State:
        environment.reset(seed=seed)
        data = environment.data
        return State(data.qpos.copy(), data.qvel.copy(), data.sensordata.copy(), np.zeros(2))

    def observe(now: State) -> Array:
        return np.concatenate([now.qpos[:, 1:], now.qvel.clip(-runner.fastest, runner.fastest)], axis=1)

    def reward(before: State, action: Array, now: State) -> Array:
        velocity = (now.qpos[:, 0] - before.qpos[:, 0]) / period
        alive = 0.0 if healthy is None else healthy(now).astype(np.float64)
        return np.asarray(velocity + alive - runner.control_cost * np.square(action).sum(axis=1))

    return Rules(
        id=f"mujoco/{name}",
        model=environment.model,
        substeps=environment.frame_skip,
        horizon=gymnasium.spec(runner.official).max_episode_steps or 1000,
        begin=begin,
        observe=observe,
        reward=reward,
        ended=None if healthy is None else lambda now: ~healthy(now),
    )
