"""The stacking task as the rest of the house sees it: collect experience, score policies, know the reference scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pmpo_offline.data.experience import Experience
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.tasks.collection import collect
from pmpo_offline.tasks.stacking.behaviors import Behavior, Script
from pmpo_offline.tasks.stacking.episodes import Choose, play
from pmpo_offline.tasks.stacking.observation import OBSERVATION_DIM, observe
from pmpo_offline.tasks.stacking.recording import record
from pmpo_offline.tasks.stacking.shapes import TRIPLETS
from pmpo_offline.tasks.stacking.simulation import ACTION_DIM, Array, Layout, Scene, random_layout
from pmpo_offline.tasks.task import Outcome, Scored
from pmpo_offline.tasks.task import behaviors as parsed

_HELD_OUT_SEED = (
    7_310_000_000  # no dataset has these layouts: they are drawn on test triplets, which are not trained on
)


def held_out_layouts(episodes: int, seed: int = _HELD_OUT_SEED) -> tuple[list[Layout], list[str]]:
    """Return the layouts on which everybody is scored, cycling through the test triplets, and the triplets' names."""
    names = [list(TRIPLETS)[i % len(TRIPLETS)] for i in range(episodes)]
    return [random_layout(np.random.default_rng(seed + i), TRIPLETS[name]) for i, name in enumerate(names)], names


class StackingTask:
    """Stack red on blue; `rgb-stacking/proxy`."""

    id = "rgb-stacking/proxy"
    simulators: tuple[str, ...] = ("mujoco",)
    observation_dim = OBSERVATION_DIM
    action_dim = ACTION_DIM

    def sources(self, behaviors: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """Return nothing: the behaviours are numbers in the declaration."""
        return {}

    def collect(
        self,
        behaviors: Sequence[Mapping[str, Any]],
        episodes: int,
        seed: int,
        workers: int,
        folder: Path,
    ) -> Experience:
        """Record episodes of the declared behaviours; `UserError` if the declaration is malformed."""
        mixture = tuple(parsed(self.id, Behavior, behaviors))
        return collect(partial(record, mixture), episodes, seed, workers, folder)

    def candidates(
        self, behaviors: Sequence[Mapping[str, Any]], experience: Experience, states: int, actions: int, seed: int
    ) -> Scored | None:
        """Return None: what an action is worth here only a critic can tell."""
        return None

    def score(
        self,
        policy: MixturePolicy,
        episodes: int,
        threads: int,
    ) -> tuple[Outcome, list[str]]:
        """Play the held-out layouts with every stacked policy; outcomes are run by run, (runs * episodes,).

        Every step a component of the mixture is drawn and its mean is played: the choices are the policy's own,
        its jitter within a choice is left out. The draws are common to all runs and all learners.
        """
        layouts, names = held_out_layouts(episodes)
        runs = policy.runs
        device = policy.observation_mean.device
        observation = torch.zeros(runs * episodes, self.observation_dim)
        generator = torch.Generator().manual_seed(0)

        def choose(scene: Scene, active: NDArray[np.intp], t: int) -> Array:
            observation[torch.from_numpy(active)] = torch.from_numpy(observe(scene))
            uniform = torch.rand(episodes, generator=generator).to(device)
            with torch.no_grad():
                action = policy(observation.view(runs, episodes, -1).to(device)).component(uniform)
            # A policy that diverged says NaN: it stands still.
            finite: Array = np.nan_to_num(action.flatten(0, 1).cpu().double().numpy())
            return finite[active]

        return play(layouts * runs, choose, threads=threads), names

    def references(self, episodes: int, seed: int, threads: int) -> tuple[Outcome, Outcome]:
        """Measure what the normalized score is relative to: uniformly random actions, and the noise-free script."""
        layouts, _ = held_out_layouts(episodes, _HELD_OUT_SEED + 1_000_000 * (1 + seed))
        rng = np.random.default_rng(seed)
        script = Script.of([Behavior(name="noise-free", weight=1)] * episodes)

        def random(scene: Scene, active: NDArray[np.intp], t: int) -> Array:
            return rng.uniform(-1, 1, (episodes, ACTION_DIM))[active]

        def scripted(scene: Scene, active: NDArray[np.intp], t: int) -> Array:
            return script.take(active).act(scene)

        choices: tuple[Choose, Choose] = (random, scripted)
        low, high = (play(layouts, choose, threads=threads) for choose in choices)
        return low, high
