"""A bandit in the plane: an action is worth the more the nearer it is to a ring around the origin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pmpo_offline.data import Experience
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.tasks.task import Behavior, CollectionSpec, Outcome, Task

RADIUS = 0.6


class RingTask(Task):
    """One action an episode; the reward is minus its distance from the ring."""

    id = "example/ring"
    simulators = ("numpy",)
    """Packages whose versions the experience depends on."""
    observation_dim = 1
    action_dim = 2

    def collect(self, spec: CollectionSpec, folder: Path, workers: int) -> Experience:
        """Draw uniform actions, whatever the declared behaviours are called."""
        mixture, episodes = Behavior.parse(self.id, spec.behaviors), spec.episodes
        rng = np.random.default_rng(spec.seed)
        action = rng.uniform(-1, 1, (episodes, self.action_dim)).astype(np.float32)
        return Experience(
            observation=np.zeros((episodes, 1), np.float32),
            action=action,
            reward=reward(action).astype(np.float32),
            length=np.ones(episodes, np.int64),
            success=reward(action) > -0.1,
            terminated=np.ones(episodes, np.bool_),
            final_observation=np.zeros((episodes, 1), np.float32),
            behavior=np.array([mixture[i % len(mixture)].name for i in range(episodes)]),
            seed=spec.seeds,
        )

    def score(self, policy: MixturePolicy, episodes: int, threads: int) -> tuple[Outcome, list[str]]:
        """Draw an action an episode from every stacked policy, with random numbers that all share."""
        generator = torch.Generator().manual_seed(0)
        uniform = torch.rand(episodes, generator=generator)
        normal = torch.randn(episodes, self.action_dim, generator=generator)
        with torch.no_grad():
            action = policy(torch.zeros(policy.runs, episodes, 1)).sample(uniform, normal)
        return outcome(torch.nan_to_num(action).flatten(0, 1).numpy()), ["ring"] * episodes

    def references(self, episodes: int, seed: int, threads: int) -> tuple[Outcome, Outcome]:
        """Return uniform actions, 0 of the normalized score, and a point of the ring, 100."""
        uniform = np.random.default_rng(seed).uniform(-1, 1, (episodes, self.action_dim))
        return outcome(uniform), outcome(np.tile([RADIUS, 0.0], (episodes, 1)))


def reward(action: NDArray[Any]) -> NDArray[Any]:
    """Return minus the distance of actions (n, 2) from the ring, (n,)."""
    distance: NDArray[Any] = np.abs(np.linalg.norm(action, axis=-1) - RADIUS)
    return -distance


def outcome(action: NDArray[Any]) -> Outcome:
    """Return how episodes of these actions end."""
    returns = reward(action).astype(np.float64)
    return Outcome(returns=returns, length=np.ones(len(returns), np.int64), success=returns > -0.1)
