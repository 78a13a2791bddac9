"""A control task as the rest of the house sees it: collect experience, score policies, know the reference scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pmpo_offline.data.experience import Experience
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.policies.behavior import BehaviorPolicy
from pmpo_offline.tasks.collection import collect
from pmpo_offline.tasks.control import recording
from pmpo_offline.tasks.control.episodes import play
from pmpo_offline.tasks.control.recording import Behavior
from pmpo_offline.tasks.control.registry import rules
from pmpo_offline.tasks.control.simulation import Array, Rules
from pmpo_offline.tasks.task import Outcome, Scored
from pmpo_offline.tasks.task import behaviors as parsed

_HELD_OUT = 7_310_000_000_000_000  # beyond the seeds of every dataset, which are below 2^31 million


class ControlTask:
    """One of dm_control's or Gymnasium's tasks, such as `dm_control/cheetah-run` and `mujoco/hopper`.

    Args:
        id: a key of `control.RULES`.
    """

    def __init__(self, id: str) -> None:
        self.id = id
        self.simulators: tuple[str, ...] = ("mujoco", "dm_control" if id.startswith("dm_control/") else "gymnasium")

    @cached_property
    def rules(self) -> Rules:
        """The task's rules; loading them takes a second."""
        return rules(self.id)

    @property
    def observation_dim(self) -> int:
        """O."""
        return self.rules.observation_dim

    @property
    def action_dim(self) -> int:
        """A."""
        return self.rules.action_dim

    def sources(self, behaviors: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """Return the sha256 of the weights that the declared behaviours act with."""
        return recording.sources(self.id, parsed(self.id, Behavior, behaviors))

    def collect(
        self,
        behaviors: Sequence[Mapping[str, Any]],
        episodes: int,
        seed: int,
        workers: int,
        folder: Path,
    ) -> Experience:
        """Record episodes of the declared behaviours; `UserError` if one is malformed or its weights are missing."""
        mixture = tuple(parsed(self.id, Behavior, behaviors))
        recording.actors(self.id, mixture)  # so that what is wrong with the weights is said here, not in a process
        record = partial(recording.record, self.id, mixture)
        return collect(record, episodes, seed, workers, folder, chunk=recording.CHUNK)

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
        """Play held-out beginnings with every stacked policy; outcomes are run by run, (runs * episodes,).

        Every step a component of the mixture is drawn and its mean is played, without the jitter within it. The draws
        are common to all runs and all learners. A policy that diverged acts with zeros.
        """
        device = policy.observation_mean.device
        generator = torch.Generator().manual_seed(0)

        def choose(observation: Array, t: int) -> Array:
            uniform = torch.rand(episodes, generator=generator).to(device)
            seen = torch.from_numpy(observation.astype(np.float32)).view(policy.runs, episodes, -1).to(device)
            with torch.no_grad():
                action = policy(seen).component(uniform)
            return np.asarray(np.nan_to_num(action.flatten(0, 1).cpu().double().numpy()))

        seeds = held_out(episodes) * policy.runs
        return play(self.rules, seeds, choose, threads=threads), [self.id] * episodes

    def references(self, episodes: int, seed: int, threads: int) -> tuple[Outcome, Outcome]:
        """Measure what the normalized score is relative to: uniformly random actions, and the shipped expert's mean."""
        seeds = held_out(episodes, stream=1 + seed)
        rng = np.random.default_rng(seed)
        expert = BehaviorPolicy.load(recording.weights_file(self.id, "expert"))

        def random(observation: Array, t: int) -> Array:
            return rng.uniform(-1, 1, (episodes, self.action_dim))

        def best(observation: Array, t: int) -> Array:
            return expert.mean(observation)

        return play(self.rules, seeds, random, threads=threads), play(self.rules, seeds, best, threads=threads)


def held_out(episodes: int, stream: int = 0) -> list[int]:
    """Return seeds that no dataset has; each stream has its own."""
    first = _HELD_OUT + 1_000_000 * stream
    return list(range(first, first + episodes))
