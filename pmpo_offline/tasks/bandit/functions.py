"""Functions of an action in the box [-1, 1]^D, as regrets: 0 at the best action, 1 for a uniformly random one.

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
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

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
