"""The stacking task: collect experience of scripted behaviours, score policies, measure the reference scores."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from pmpo_offline.data import Experience
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.tasks import simulated
from pmpo_offline.tasks.simulated import Index, play, play_policy
from pmpo_offline.tasks.stacking.scene import TRIPLETS, Array, Layout, random_layout, random_triplet
from pmpo_offline.tasks.stacking.script import Script, StackingBehavior, correlated_noise
from pmpo_offline.tasks.stacking.simulation import ACTION_DIM, HORIZON, OBSERVATION_DIM, StackingSimulation
from pmpo_offline.tasks.task import CollectionSpec, Outcome, Task

_HELD_OUT_SEED = 7_310_000_000  # in no dataset: these layouts are of the test triplets


def held_out_layouts(episodes: int, seed: int = _HELD_OUT_SEED) -> tuple[list[Layout], list[str]]:
    """Return the layouts that policies are scored on, cycling through the test triplets, and the triplets' names."""
    names = [list(TRIPLETS)[i % len(TRIPLETS)] for i in range(episodes)]
    return [random_layout(np.random.default_rng(seed + i), TRIPLETS[name]) for i, name in enumerate(names)], names


def record(behaviors: Sequence[StackingBehavior], seeds: Sequence[int]) -> Experience:
    """Play one episode a seed and return every step of it, episode after episode."""
    weights = np.array([behavior.weight for behavior in behaviors])
    layouts: list[Layout] = []
    chosen: list[StackingBehavior] = []
    noise = np.empty((len(seeds), HORIZON, ACTION_DIM))
    for i, seed in enumerate(seeds):
        rng = np.random.default_rng(seed)
        chosen.append(behaviors[rng.choice(len(behaviors), p=weights / weights.sum())])
        layouts.append(random_layout(rng, random_triplet(rng)))
        noise[i] = correlated_noise(np.array(chosen[-1].noise), HORIZON, rng)
    simulation, script = StackingSimulation(layouts), Script.of(chosen)

    def choose(active: Index, t: int) -> Array:
        noisy = script.take(active).act(simulation.scene(active)) + noise[active, t]
        # What is stored is what was applied, to the last bit.
        action: Array = np.clip(noisy, -1, 1).astype(np.float32).astype(np.float64)
        return action

    return simulated.record(simulation, choose, [behavior.name for behavior in chosen], seeds)


class StackingTask(Task):
    """Stack red on blue; `rgb-stacking/proxy`."""

    id = "rgb-stacking/proxy"
    simulators: tuple[str, ...] = ("mujoco",)
    observation_dim = OBSERVATION_DIM
    action_dim = ACTION_DIM

    def collect(self, spec: CollectionSpec, folder: Path, workers: int) -> Experience:
        """Record episodes of the declared behaviours; `UserError` if the declaration is malformed."""
        behaviors = tuple(StackingBehavior.parse(self.id, spec.behaviors))
        return simulated.collect(partial(record, behaviors), spec, folder, workers)

    def score(self, policy: MixturePolicy, episodes: int, threads: int) -> tuple[Outcome, list[str]]:
        """Play the held-out layouts with every stacked policy; outcomes are run by run, (runs * episodes,)."""
        layouts, names = held_out_layouts(episodes)
        return play_policy(StackingSimulation(layouts * policy.runs, threads), policy), names

    def references(self, episodes: int, seed: int, threads: int) -> tuple[Outcome, Outcome]:
        """Play uniformly random actions, 0 of the normalized score, and the noise-free script, 100."""
        layouts, _ = held_out_layouts(episodes, _HELD_OUT_SEED + 1_000_000 * (1 + seed))
        rng = np.random.default_rng(seed)
        script = Script.of([StackingBehavior(name="noise-free", weight=1)] * episodes)
        simulation = StackingSimulation(layouts, threads)

        def random(active: Index, t: int) -> Array:
            return rng.uniform(-1, 1, (episodes, ACTION_DIM))[active]

        def scripted(active: Index, t: int) -> Array:
            return script.take(active).act(simulation.scene(active))

        return play(StackingSimulation(layouts, threads), random), play(simulation, scripted)
