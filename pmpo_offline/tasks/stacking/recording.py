"""Record stacking episodes of scripted behaviours: one a seed, every step of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pmpo_offline.data.experience import Experience
from pmpo_offline.tasks.stacking.behaviors import Behavior, Script, correlated_noise
from pmpo_offline.tasks.stacking.episodes import HORIZON, play
from pmpo_offline.tasks.stacking.observation import OBSERVATION_DIM, observe
from pmpo_offline.tasks.stacking.shapes import random_triplet
from pmpo_offline.tasks.stacking.simulation import ACTION_DIM, Array, Layout, Scene, Simulation, random_layout


def record(behaviors: Sequence[Behavior], seeds: Sequence[int]) -> Experience:
    """Play one episode a seed and return every step of it, episode after episode."""
    weights = np.array([behavior.weight for behavior in behaviors])
    layouts: list[Layout] = []
    chosen: list[Behavior] = []
    noise = np.empty((len(seeds), HORIZON, ACTION_DIM))
    for i, seed in enumerate(seeds):
        rng = np.random.default_rng(seed)
        chosen.append(behaviors[rng.choice(len(behaviors), p=weights / weights.sum())])
        layouts.append(random_layout(rng, random_triplet(rng)))
        noise[i] = correlated_noise(np.array(chosen[-1].noise), HORIZON, rng)
    script = Script.of(chosen)
    observation = np.empty((len(seeds), HORIZON + 1, OBSERVATION_DIM), np.float32)
    action = np.empty((len(seeds), HORIZON, ACTION_DIM), np.float32)
    reward = np.empty((len(seeds), HORIZON), np.float32)
    time = np.zeros(len(seeds), np.int64)

    def choose(scene: Scene, active: NDArray[np.intp], t: int) -> Array:
        # What is stored is what was applied, to the last bit.
        action: Array = np.clip(script.take(active).act(scene) + noise[active, t], -1, 1).astype(np.float32)
        return action.astype(np.float64)

    def watch(simulation: Simulation, scene: Scene, active: NDArray[np.intp], taken: Array, gained: Array) -> None:
        t = time[active]
        observation[active, t] = observe(scene)
        action[active, t], reward[active, t] = taken, gained
        time[active] += 1
        observation[active, t + 1] = observe(simulation.scene(active))

    outcome = play(layouts, choose, watch=watch)
    steps = np.arange(HORIZON) < outcome.length[:, None]
    return Experience(
        observation=observation[:, :-1][steps],
        action=action[steps],
        reward=reward[steps],
        length=outcome.length,
        success=outcome.success,
        terminated=outcome.success,
        final_observation=observation[np.arange(len(seeds)), outcome.length],
        behavior=np.array([behavior.name for behavior in chosen]),
        seed=np.array(seeds, np.int64),
    )
