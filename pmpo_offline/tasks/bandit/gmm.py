"""Several good places and as many bad ones between them: a bandit that one Gaussian cannot solve.

    f(a) = 1 - sum_good bump(a) + sum_bad bump(a),    bump(a) = max(0, 1 - |a - centre|^2 / radius^2)

on the square [-1, 1]^2. The discs are disjoint and lie inside the square, so f is 0 in the middle of a good disc, 2 in
that of a bad one and 1 outside of all discs. Every good disc has a bad one of its size: a uniformly random agent has a
regret of exactly 1, and the actions better than its average are the good discs. Labelled by that (`reward:-1`) the
accepted actions fall into four islands around a large bad one, where their average lies.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pmpo_offline.tasks.bandit.functions import Function

GOOD = ((0.6, 0.6, 0.25), (-0.6, 0.55, 0.2), (-0.55, -0.6, 0.3), (0.55, -0.55, 0.2))
"""Discs of actions better than average: both coordinates of the centre, radius."""
BAD = ((0.0, 0.72, 0.25), (-0.72, 0.0, 0.2), (0.0, 0.0, 0.3), (0.72, 0.0, 0.2))
"""Discs of actions worse than average."""


def value(action: Tensor) -> Tensor:
    """Return f, `(..., 2)` to `(...)`; ValueError for another number of dimensions."""
    if action.shape[-1] != 2:
        raise ValueError(f"gmm takes 2 dimensions, not {action.shape[-1]}")
    return 1 - _bumps(action, GOOD) + _bumps(action, BAD)


def _bumps(action: Tensor, discs: tuple[tuple[float, float, float], ...]) -> Tensor:
    disc = torch.tensor(discs, dtype=action.dtype, device=action.device)
    distance = (action.unsqueeze(-2) - disc[:, :2]).square().sum(-1)
    return (1 - distance / disc[:, 2].square()).clamp(min=0).sum(-1)


GMM = Function("gmm", GOOD[0][0], value, lambda dimensions: 1.0, least_dimensions=2)
"""The bandit's function; any centre of a good disc is a best action, the first lies on the diagonal."""
