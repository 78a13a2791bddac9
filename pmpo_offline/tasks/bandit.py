"""Bandits: one action an episode, no context, and a reward that is known exactly.

Their functions of an action in the box [-1, 1]^D are regrets: 0 at the best action, 1 for a uniformly random one.

The first three are textbook functions f of x, an affine image of the action, divided by the mean of f over the whole
box. That mean is known in closed form, so nothing here was measured. The reward of an action is its regret with the
sign turned: at most 0, and -1 on average for an agent that acts at random, in every dimension.

| function | x | best action, each coordinate | what is hard |
|---|---|---|---|
| Sphere | a | 0.5, where no policy that starts at 0 is already | nothing |
| Rosenbrock | 2.048 a | 0.488 | a bent valley a thousand times as steep across as along |
| Schwefel | 500 a | 0.842, near a corner | many optima, the second best far from the best |

And one that a single Gaussian cannot solve, `gmm`: several good places and as many bad ones between them,

    f(a) = 1 - sum_good bump(a) + sum_bad bump(a),    bump(a) = max(0, 1 - |a - centre|^2 / radius^2)

on the square [-1, 1]^2. The discs are disjoint and lie inside the square, so f is 0 in the middle of a good disc, 2 in
that of a bad one and 1 outside of all discs. Every good disc has a bad one of its size: a uniformly random agent has a
regret of exactly 1, and the actions better than its average are the good discs. Labelled by that (`reward:-1`) the
accepted actions fall into four islands around a large bad one, where their average lies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from pmpo_offline.data import Experience
from pmpo_offline.policies import Policy
from pmpo_offline.runtime import progress
from pmpo_offline.tasks.task import Behavior, CollectionSpec, Outcome, ScoredCandidates, Task
from pmpo_offline.tasks.trajectories import Trajectories

_SHIFT = 0.5
_HALF_WIDTH = 2.048  # the usual domain of Rosenbrock's function
_SCHWEFEL_BEST = 420.96874636  # where x sin(sqrt(x)) is largest below 500: tan(sqrt(x)) = -sqrt(x) / 2
_SCHWEFEL_TOP = _SCHWEFEL_BEST * math.sin(math.sqrt(_SCHWEFEL_BEST))


@dataclass(frozen=True)
class Function:
    """A function to be minimised over [-1, 1]^D."""

    name: str
    best: float
    """Every coordinate of the best action."""
    value: Callable[[Tensor], Tensor]
    """f, `(..., D)` to `(...)`; 0 at the best action."""
    average: Callable[[int], float]
    """Mean of f over uniformly random actions, from D."""
    least_dimensions: int = 1
    dimensions: int = 10
    """D of its task."""

    def regret(self, action: Tensor) -> Tensor:
        """Return f(action) relative to a random action's mean, `(..., D)` to `(...)`; actions are clipped to the box.

        Raises:
            ValueError: fewer dimensions than the function has a meaning for.
        """
        dimensions = action.shape[-1]
        if dimensions < self.least_dimensions:
            raise ValueError(f"{self.name} takes {self.least_dimensions} dimensions or more, not {dimensions}")
        # In double precision, because near the best action Schwefel's function is a difference of equal numbers.
        relative = self.value(action.double().clamp(-1, 1)) / self.average(dimensions)
        return relative.clamp(min=0).to(action.dtype)

    def reward(self, action: Tensor) -> Tensor:
        """Return the regret with the sign turned, `(..., D)` to `(...)`."""
        return -self.regret(action)


def _sphere(a: Tensor) -> Tensor:
    return (a - _SHIFT).square().sum(-1)


def _rosenbrock(a: Tensor) -> Tensor:
    x = _HALF_WIDTH * a
    return (100 * (x[..., 1:] - x[..., :-1].square()).square() + (1 - x[..., :-1]).square()).sum(-1)


def _schwefel(a: Tensor) -> Tensor:
    x = 500 * a
    return (_SCHWEFEL_TOP - x * x.abs().sqrt().sin()).sum(-1)


def _rosenbrock_average(dimensions: int) -> float:
    # Of uniform x on [-b, b], E x^2 = b^2 / 3 and E x^4 = b^4 / 5, and odd moments are 0.
    square = _HALF_WIDTH**2
    return (dimensions - 1) * (100 * (square / 3 + square**2 / 5) + 1 + square / 3)


SPHERE = Function("sphere", _SHIFT, _sphere, lambda dimensions: dimensions * (1 / 3 + _SHIFT**2))
ROSENBROCK = Function("rosenbrock", 1 / _HALF_WIDTH, _rosenbrock, _rosenbrock_average, least_dimensions=2)
# x sin(sqrt(|x|)) is odd, so that only the constant remains on average.
SCHWEFEL = Function("schwefel", _SCHWEFEL_BEST / 500, _schwefel, lambda dimensions: dimensions * _SCHWEFEL_TOP)

FUNCTIONS: dict[str, Function] = {function.name: function for function in (SPHERE, ROSENBROCK, SCHWEFEL)}
"""The textbook functions by name."""

GOOD = ((0.6, 0.6, 0.25), (-0.6, 0.55, 0.2), (-0.55, -0.6, 0.3), (0.55, -0.55, 0.2))
"""Discs of actions better than average: both coordinates of the centre, radius."""
BAD = ((0.0, 0.72, 0.25), (-0.72, 0.0, 0.2), (0.0, 0.0, 0.3), (0.72, 0.0, 0.2))
"""Discs of actions worse than average."""


def _gmm(action: Tensor) -> Tensor:
    """Return f, `(..., 2)` to `(...)`; `ValueError` for another number of dimensions."""
    if action.shape[-1] != 2:
        raise ValueError(f"gmm takes 2 dimensions, not {action.shape[-1]}")
    return 1 - _bumps(action, GOOD) + _bumps(action, BAD)


def _bumps(action: Tensor, discs: tuple[tuple[float, float, float], ...]) -> Tensor:
    disc = torch.tensor(discs, dtype=action.dtype, device=action.device)
    distance = (action.unsqueeze(-2) - disc[:, :2]).square().sum(-1)
    return (1 - distance / disc[:, 2].square()).clamp(min=0).sum(-1)


GMM = Function("gmm", GOOD[0][0], _gmm, lambda dimensions: 1.0, least_dimensions=2, dimensions=2)
"""The bandit's function; any centre of a good disc is a best action, the first lies on the diagonal."""

BANDITS = {**FUNCTIONS, GMM.name: GMM}
"""The functions of all bandit tasks by name."""

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

    def score(self, policy: Policy, episodes: int, threads: int) -> tuple[Outcome, list[str]]:
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
        taken = torch.nan_to_num(action, nan=-1.0).flatten(0, 1).cpu().numpy()
        regret = self._regret(taken)
        progress.report("play episodes", episodes, episodes)
        once = np.ones((len(taken), 1), np.int32)
        trajectories = Trajectories(once, -regret[:, None], taken[:, None], np.zeros((*once.shape, 1), np.float32))
        return replace(_outcome(regret), trajectories=trajectories), [self.function.name] * episodes

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
