"""What learners of behaviours act with: a small network, normalised observations, beginnings drawn beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pmpo_offline.policies.behavior import BehaviorPolicy
from pmpo_offline.tasks.control import Rules, Start

Array = NDArray[np.float64]

ACTOR = 64
"""Units of either of an actor's two layers."""
SMALLEST_SCALE = 1e-2
"""Of an observation: what hardly ever moves is not blown up."""
CARRIED = ("state", "sensors", "target", "elapsed")
"""What a simulation's episodes consist of."""


class Pool:
    """Beginnings drawn once and named by their number, in place of an official environment that draws them by seed.

    dm_control takes as long for one beginning as the simulation does for a hundred steps.

    Args:
        rules: the task.
        count: how many.
        chance: draws them, and later who begins with which.
    """

    def __init__(self, rules: Rules, count: int, chance: torch.Generator) -> None:
        self._chance = chance
        self._starts = [rules.begin(int(word)) for word in torch.randint(2**32, (count,), generator=chance)]

    def __call__(self, seed: int) -> Start:
        """Return a beginning by its number; this is what `Rules.begin` asks for."""
        return self._starts[seed]

    def draw(self, count: int) -> list[int]:
        """Return the numbers of so many beginnings."""
        drawn: list[int] = torch.randint(len(self._starts), (count,), generator=self._chance).tolist()
        return drawn


class Moments:
    """Running mean and variance of columns, merged batch by batch (Chan et al. 1979).

    Args:
        columns: their number.
    """

    def __init__(self, columns: int) -> None:
        self.values = torch.zeros(3, columns, dtype=torch.float64)
        """Count, mean and sum of squared differences, (3, columns)."""

    def add(self, batch: Array) -> None:
        """Take in rows (m, columns)."""
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


def as_policy(actor: nn.Sequential, mean: Array, std: Array, log_std: Tensor) -> BehaviorPolicy:
    """Return the policy whose mean is `actor`, of `perceptron`, at observations normalised by mean and std, (O,)."""
    layers = [layer for layer in actor if isinstance(layer, nn.Linear)]
    return BehaviorPolicy(
        center=mean.astype(np.float32),
        scale=np.maximum(std, SMALLEST_SCALE).astype(np.float32),
        weights=tuple(layer.weight.detach().numpy().T.copy() for layer in layers),
        biases=tuple(layer.bias.detach().numpy().copy() for layer in layers),
        log_std=log_std.detach().numpy().copy(),
    )


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


_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def optimized(optimizer: torch.optim.Optimizer, weights: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return copies of weights and Adam's moments by name."""
    tensors = {f"weight.{i}": weight.detach().clone() for i, weight in enumerate(weights)}
    for i, weight in enumerate(weights):
        if moments := optimizer.state[weight]:  # there are none before the first step
            tensors |= {f"{name}.{i}": moments[name].clone() for name in _MOMENTS}
    return tensors


def put_back(optimizer: torch.optim.Optimizer, weights: Sequence[Tensor], state: Mapping[str, Tensor]) -> None:
    """Give weights and optimizer what `optimized` returned."""
    with torch.no_grad():
        for i, weight in enumerate(weights):
            weight.copy_(state[f"weight.{i}"])
            if f"step.{i}" in state:
                optimizer.state[weight] = {name: state[f"{name}.{i}"].clone() for name in _MOMENTS}
