"""Play control episodes in one batch: the loop that collecting, scoring and measuring references have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pmpo_offline.runtime import progress
from pmpo_offline.tasks.control.simulation import Array, Index, Rules, Simulation, Step
from pmpo_offline.tasks.task import Outcome

Choose = Callable[[Array, int], Array]
"""From the observations of all n episodes, (n, O), and the time step, their actions, (n, A).

It is asked for all of them, also those that are over: a product of matrices of equal shapes rounds alike every time,
so that an episode stays the same to the bit whatever becomes of its neighbours."""
Watch = Callable[[Index, int, Array, Array, Step], None]
"""Told after every step: which episodes acted, (m,), when, on seeing what, (m, O), how, (m, A), and the result."""


def play(
    rules: Rules,
    seeds: Sequence[int],
    choose: Choose,
    *,
    threads: int = 1,
    watch: Watch | None = None,
) -> Outcome:
    """Play one episode a seed, each to its end; nothing depends on `threads`.

    An episode begins as the official environment does with a number made of its seed (`begin_seed`). Success is not a
    notion of these tasks, so there is none.
    """
    n = len(seeds)
    simulation = Simulation(rules, n, threads)
    observation = simulation.reset([begin_seed(seed) for seed in seeds])
    returns, length = np.zeros(n), np.zeros(n, np.int64)
    active = np.arange(n)
    for t in range(rules.horizon):
        action = np.clip(choose(observation, t)[active], -1, 1)
        step = simulation.step(action, active)
        if watch:
            watch(active, t, observation[active], action, step)
        observation[active] = step.observation
        returns[active] += step.reward
        length[active] += 1
        active = active[~step.done]
        progress.report("play episodes", t + 1, rules.horizon)
        if not len(active):
            break
    progress.report("play episodes", rules.horizon, rules.horizon)
    return Outcome(returns, length, np.zeros(n, np.bool_))


def begin_seed(seed: int) -> int:
    """Return the number in [0, 2^32) that the official environment is seeded with in the episode of this seed."""
    return int(np.random.SeedSequence(seed).generate_state(1)[0])
