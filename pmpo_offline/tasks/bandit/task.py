"""Bandits: one action an episode, no context, and a reward that is known exactly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from pmpo_offline.data import Experience
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.runtime import progress
from pmpo_offline.tasks.bandit.functions import Function
from pmpo_offline.tasks.task import Behavior, CollectionSpec, Outcome, ScoredCandidates, Task

SUCCESS = 0.5
"""An action succeeds if its regret is at most this: half of a random action's."""


class BanditBehavior(Behavior):
    """A distribution of actions, as declared in a dataset's TOML; actions are clipped to [-1, 1]."""

    distribution: Literal["gaussian", "uniform"]
    """Uniform actions come from the whole box and have no `mean` and `std`."""
    mean: float = Field(default=0.0, ge=-1, le=1)
    """Mean of every coordinate."""
    std: float = Field(default=0.5, gt=0)
    """Standard deviation of every coordinate."""


class BanditTask(Task):
    """Find the best action of one function; `bandit/<function>`."""

    simulators: tuple[str, ...] = ("numpy",)
    observation_dim = 1

    def __init__(self, function: Function) -> None:
        self.id = f"bandit/{function.name}"
        self.function = function

    @property
    def action_dim(self) -> int:
        """D."""
        return self.function.dimensions

    def collect(self, spec: CollectionSpec, folder: Path, workers: int) -> Experience:
        """Draw one action an episode; `UserError` if the declaration is malformed.

        It takes a fraction of a second: neither `folder` nor `workers` are used.
        """
        mixture, episodes = BanditBehavior.parse(self.id, spec.behaviors), spec.episodes
        action, chosen = self._draw(mixture, episodes, np.random.default_rng([spec.seed, 0]))
        regret = self._regret(action)
        progress.report("play episodes", episodes, episodes)
        return Experience(
            observation=np.zeros((episodes, self.observation_dim), np.float32),
            action=action,
            reward=-regret,
            length=np.ones(episodes, np.int64),
            success=regret <= SUCCESS,
            terminated=np.ones(episodes, np.bool_),
            final_observation=np.zeros((episodes, self.observation_dim), np.float32),
            behavior=np.array([mixture[i].name for i in chosen]),
            seed=spec.seeds,
        )

    def candidates(self, spec: CollectionSpec, experience: Experience, states: int, actions: int) -> ScoredCandidates:
        """Draw new actions of the behaviour at the first `states` steps and return them with their rewards."""
        mixture, shape = BanditBehavior.parse(self.id, spec.behaviors), (min(states, len(experience.reward)), actions)
        action, _ = self._draw(mixture, shape[0] * actions, np.random.default_rng([spec.seed, 1]))
        score = -self._regret(action)
        return ScoredCandidates(np.arange(shape[0]), action.reshape(*shape, self.action_dim), score.reshape(shape))

    def score(self, policy: MixturePolicy, episodes: int, threads: int) -> tuple[Outcome, list[str]]:
        """Draw `episodes` actions of every stacked policy and return their rewards, run by run, (runs * episodes,).

        Unlike in tasks of many steps the whole distribution is what was learned, so its spread counts. The random
        numbers behind the draws are common to all runs and all algorithms. A policy that diverged acts in the corner of
        -1.
        """
        device = policy.observation_mean.device
        generator = torch.Generator().manual_seed(0)
        uniform = torch.rand(episodes, generator=generator).to(device)
        normal = torch.randn(episodes, self.action_dim, generator=generator).to(device)
        with torch.no_grad():
            observation = torch.zeros(policy.runs, episodes, self.observation_dim, device=device)
            action = policy(observation).sample(uniform, normal)
        regret = self._regret(torch.nan_to_num(action, nan=-1.0).flatten(0, 1).cpu().numpy())
        progress.report("play episodes", episodes, episodes)
        return _outcome(regret), [self.function.name] * episodes

    def references(self, episodes: int, seed: int, threads: int) -> tuple[Outcome, Outcome]:
        """Score uniformly random actions, 0 of the normalized score, and the best action, 100."""
        uniform = np.random.default_rng([seed, 2]).uniform(-1, 1, (episodes, self.action_dim))
        best = np.full((episodes, self.action_dim), self.function.best)
        return _outcome(self._regret(uniform)), _outcome(self._regret(best))

    def _draw(
        self, mixture: Sequence[BanditBehavior], count: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return actions (count, D) and the place in the mixture of the behaviour behind each."""
        weight = np.array([behavior.weight for behavior in mixture])
        chosen = rng.choice(len(mixture), count, p=weight / weight.sum())
        mean, std = (np.array([getattr(behavior, name) for behavior in mixture]) for name in ("mean", "std"))
        gaussian = mean[chosen, None] + std[chosen, None] * rng.standard_normal((count, self.action_dim))
        anywhere = rng.uniform(-1, 1, (count, self.action_dim))
        uniform = np.array([behavior.distribution == "uniform" for behavior in mixture])
        action = np.where(uniform[chosen, None], anywhere, gaussian).clip(-1, 1)
        return action.astype(np.float32), chosen

    def _regret(self, action: NDArray[Any]) -> NDArray[Any]:
        regret: NDArray[Any] = self.function.regret(torch.from_numpy(action)).numpy()
        return regret


def _outcome(regret: NDArray[Any]) -> Outcome:
    regret = regret.astype(np.float64)
    return Outcome(returns=-regret, length=np.ones(len(regret), np.int64), success=regret <= SUCCESS)
