"""True values of recorded actions: their states are restored in the simulator and the behaviour plays on.

A state is played to the end of a horizon many times: once with the recorded action first, once with every candidate,
once with an action of the behaviour's own, which gives V. All of them then meet the *same* exploration noise, and every
noise is played with its opposite too, so that much of the chance is the same on both sides of Q - V and goes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pmpo_offline.data import Dataset, columns
from pmpo_offline.policies.behavior import BehaviorPolicy
from pmpo_offline.runtime import progress
from pmpo_offline.tasks.control import Rules, Simulation, State, begin_seed

Array = NDArray[np.float64]
Index = NDArray[np.int64]
_AT_ONCE = 2048  # episodes


@dataclass(frozen=True)
class Acting:
    """A behaviour: the mean of a policy and the deviation (A,) with which it was recorded."""

    policy: BehaviorPolicy
    deviation: Array

    def action(self, observation: Array, noise: Array) -> Array:
        """Return the actions (m, A) at observations (m, O) with standard normal noise (m, A), as they are recorded."""
        return np.clip(self.policy.mean(observation) + self.deviation * noise, -1, 1)


@dataclass(frozen=True)
class Horizon:
    """How far and how often every action is played on."""

    rollouts: int
    """An even number: half of them are the opposites of the others."""
    steps: int
    """Control steps."""
    discount: float
    seed: int
    """Of the noise."""


def restore(rules: Rules, dataset: Dataset, row: Index) -> list[State]:
    """Return the simulator's states at these rows: their episodes are played once more, with the recorded actions."""
    start, length = (columns.vector(dataset.episodes, name) for name in ("start", "length"))
    seed, action = columns.vector(dataset.episodes, "seed"), columns.matrix(dataset.table, "action")
    episode = columns.vector(dataset.table, "episode")[row]
    played = np.unique(episode)
    simulation = Simulation(rules, len(played))
    seen = simulation.reset([begin_seed(int(seed[each])) for each in played])
    observation = columns.matrix(dataset.table, "observation")
    found: dict[int, State] = {}
    for t in range(int(length[played].max())):
        going = np.flatnonzero(length[played] > t)
        rows = start[played[going]] + t
        for place, each in zip(going, rows, strict=True):
            if each in row:
                position, velocity = np.split(simulation.state[place, 1:], [rules.model.nq])
                target, sensors = simulation.target[place].copy(), simulation.sensors[place].copy()
                found[int(each)] = State(position.copy(), velocity.copy(), sensors, target)
        if not np.array_equal(seen[going].astype(np.float32), observation[rows]):
            raise RuntimeError(f"{dataset.metadata.id} was recorded by another simulator: build it again")
        seen[going] = simulation.step(action[rows].astype(np.float64), going).observation
    return [found[int(each)] for each in row]


def returns(rules: Rules, acting: Acting, starts: list[State], first: Array, horizon: Horizon) -> Array:
    """Play on from S states and return discounted sums of rewards, (S, K + 1, rollouts / 2).

    The last of the K + 1 begins with an action of the behaviour's own. A sum is the mean over a noise and its opposite.

    Args:
        rules: of the task; its own horizon is ignored.
        acting: the behaviour that plays on.
        starts: S states.
        first: (S, K, A), the actions that are tried.
        horizon: how far and how often.
    """
    states, k, dim = first.shape
    rollouts = horizon.rollouts
    rules = dataclasses.replace(rules, begin=starts.__getitem__, horizon=horizon.steps)
    found = []
    together = max(1, _AT_ONCE // ((k + 1) * rollouts))
    for part in np.split(np.arange(states), range(together, states, together)):
        # One stream a state: its rollouts do not depend on which others are played beside it.
        streams = [np.random.default_rng([horizon.seed, int(each)]) for each in part]
        shape = (len(part), k + 1, rollouts)
        simulation = Simulation(rules, int(np.prod(shape)))
        seen = simulation.reset(np.repeat(part, (k + 1) * rollouts).tolist())
        total, going = np.zeros(len(simulation)), np.arange(len(simulation))
        for t in range(horizon.steps):
            half = np.stack([stream.standard_normal((1, rollouts // 2, dim)) for stream in streams])
            noise = np.broadcast_to(np.concatenate([half, -half], axis=2), (*shape, dim)).reshape(-1, dim)[going]
            action = acting.action(seen, noise)
            if t == 0:
                action.reshape(*shape, dim)[:, :k] = first[part][:, :, None]
            step = simulation.step(action, going)
            total[going] += horizon.discount**t * step.reward
            going, seen = going[~step.done], step.observation[~step.done]
            if not len(going):
                break
        found.append(total.reshape(*shape[:2], 2, rollouts // 2).mean(axis=2))
        progress.report("play on", int(part[-1]) + 1, states)
    return np.concatenate(found)
