"""What PPO and cloning share: episodes that are reset when over, a small actor and normalised observations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from pmpo_offline.policies.behavior import BehaviorPolicy
from pmpo_offline.tasks.control import Rules, Simulation, Start
from pmpo_offline.tasks.simulated import Array, Bools
from pmpo_offline.training.checkpoint import allocate_moments, keep_state

ACTOR = 64
"""Units of either of an actor's two layers."""
SMALLEST_SCALE = 1e-2
"""Of an observation: rarely changing components are not blown up."""


class InitialStates:
    """Beginnings drawn once and named by a number, in place of an official environment that draws them by seed.

    dm_control takes as long for one beginning as the simulation does for a hundred steps.

    Args:
        rules: the task.
        count: how many.
        chance: draws them, and later which one an episode begins with.
    """

    def __init__(self, rules: Rules, count: int, chance: torch.Generator) -> None:
        self._chance = chance
        self._starts = [rules.begin(int(word)) for word in torch.randint(2**32, (count,), generator=chance)]

    def __call__(self, seed: int) -> Start:
        """Return a beginning by its number, as `Rules.begin` does by a seed."""
        return self._starts[seed]

    def draw(self, count: int) -> list[int]:
        """Return the numbers of `count` beginnings."""
        drawn: list[int] = torch.randint(len(self._starts), (count,), generator=self._chance).tolist()
        return drawn


class RunningStats(nn.Module):
    """Running mean and variance of columns, merged batch by batch (Chan et al. 1979).

    Args:
        columns: their number.
    """

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.register_buffer("values", torch.zeros(3, columns, dtype=torch.float64))

    values: Tensor
    """Count, mean and sum of squared differences, (3, columns)."""

    def add(self, batch: Array) -> None:
        """Add rows (m, columns)."""
        count, mean, squares = self.values.numpy()
        m = len(batch)
        gap, total = batch.mean(axis=0) - mean, count + m
        squares += np.square(batch - batch.mean(axis=0)).sum(axis=0) + np.square(gap) * count * m / total
        mean += gap * m / total
        count[:] = total

    @property
    def mean(self) -> Array:
        """(columns,)."""
        return self.values[1].numpy()

    @property
    def std(self) -> Array:
        """(columns,); 1 before the first batch."""
        count, _, squares = self.values.numpy()
        return np.sqrt(np.where(count > 0, squares / np.maximum(count, 1), 1.0))


class ActingLearner(nn.Module):
    """A learner of one tanh actor in n episodes; subclasses set the actor, its deviation and the optimizer.

    Args:
        rules: the task.
        seed: of all random numbers.
        beginnings: how many are drawn, once.
        episodes: n.
    """

    actor: nn.Sequential
    log_std: Tensor
    """(A,)."""
    optimizer: torch.optim.Adam
    weights: list[Tensor]
    """All that the optimizer moves."""

    def __init__(self, rules: Rules, seed: int, beginnings: int, episodes: int) -> None:
        super().__init__()
        self._frames = torch.tensor(0)
        self._chance = torch.Generator().manual_seed(seed)
        self._beginnings = InitialStates(rules, beginnings, self._chance)
        self._simulation = Simulation(replace(rules, begin=self._beginnings), episodes)
        self._simulation.reset(self._beginnings.draw(episodes))
        self._seen = RunningStats(self._simulation.observation.shape[1])
        keep_state(self, frames=self._frames, **self._simulation.arrays())

    @property
    def frames(self) -> int:
        """Control steps taken so far, of all episodes together."""
        return int(self._frames)

    def policy(self) -> BehaviorPolicy:
        """Return the policy as it is now."""
        layers = [layer for layer in self.actor if isinstance(layer, nn.Linear)]
        return BehaviorPolicy(
            center=self._seen.mean.astype(np.float32),
            scale=np.maximum(self._seen.std, SMALLEST_SCALE).astype(np.float32),
            weights=tuple(layer.weight.detach().numpy().T.copy() for layer in layers),
            biases=tuple(layer.bias.detach().numpy().copy() for layer in layers),
            log_std=self.log_std.detach().numpy().copy(),
        )

    def get_extra_state(self) -> Tensor:
        """Return the random state, for `state_dict`."""
        return self._chance.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the random state, for `load_state_dict`."""
        self._chance.set_state(state)

    def _train(self, weights: Iterable[Tensor], learning_rate: float, eps: float = 1e-8) -> None:
        """Make the optimizer of weights, whose moments are part of the state."""
        self.weights = list(weights)
        self.optimizer = torch.optim.Adam(self.weights, learning_rate, eps=eps, fused=True)
        keep_state(self, **{f"moment_{i}": moment for i, moment in enumerate(allocate_moments(self.optimizer))})

    def _reset(self, over: Bools) -> None:
        """Begin the episodes that are over, (n,), again."""
        if len(index := np.flatnonzero(over)):
            self._simulation.reset(self._beginnings.draw(len(index)), index)


def perceptron(sizes: tuple[int, ...], gain: float, chance: torch.Generator) -> nn.Sequential:
    """Return tanh layers between `sizes` units, orthogonal at first, the last one scaled to `gain`."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layer = nn.Linear(inputs, outputs)
        last = len(layers) == 2 * (len(sizes) - 2)
        nn.init.orthogonal_(layer.weight, gain if last else 2**0.5, generator=chance)
        nn.init.zeros_(layer.bias)
        layers += [layer] if last else [layer, nn.Tanh()]
    return nn.Sequential(*layers)
