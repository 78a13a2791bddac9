"""The advantage to first order: what moving an action away from the behaviour's own mean gains.

    A(s, a) ≈ g(s)ᵀ (a - μ(s)),   g and μ fitted,   with  E_a A(s, a) = 0  as an advantage must have

These are the compatible features of Sutton et al., *Policy gradient methods for RL with function approximation*,
2000, theorem 2, for a Gaussian policy. Return less V is regressed on them: whatever that V gets wrong depends on the
state alone, and a - μ(s) does not correlate with it (Robinson, *Root-N-consistent semiparametric regression*, 1988,
equation 3). So an error of V, mostly far larger than an advantage, costs precision and leaves no bias. A network of s
and a together spends itself on these errors instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pmpo_offline.training.critics.folds import Folds, evaluate

FITS = 2
"""Networks that are fitted one after the other."""
_STEADY = 1e-3  # a deviation of actions below which they count as always the same


@dataclass(frozen=True)
class FirstOrder:
    """The expansion at N rows, by networks that never saw them."""

    mean: Tensor
    """μ(s), (N, A)."""
    slope: Tensor
    """g(s), value an action's unit, (N, A)."""

    def __call__(self, row: Tensor, action: Tensor) -> Tensor:
        """Return the advantages of K actions at each of S rows, (S,), (S, K, A) -> (S, K)."""
        return ((action - self.mean[row].unsqueeze(1)) * self.slope[row].unsqueeze(1)).sum(-1)


def first_order(
    folds: Folds, states: Tensor, action: Tensor, residual: Tensor, hidden: Sequence[int], stage: int
) -> FirstOrder:
    """Fit μ on the actions, then g on what returns exceed V by.

    Args:
        folds: who learns from whom.
        states: what the networks see, (N, O).
        action: (N, A).
        residual: returns less V as the network of each fold sees them, (F, N).
        hidden: units of the layers.
        stage: how many fits went before.
    """
    clone = folds.networks(200, states.shape[1], hidden, action.shape[1])
    folds.fit(clone, lambda index: (clone(states[index]) - action[index]).square().mean((1, 2)), stage)
    mean = evaluate(clone, states)
    deviation = folds.spread(action - mean).clamp(min=_STEADY)
    unit = folds.spread(residual).clamp(min=torch.finfo(residual.dtype).tiny)

    slope = folds.networks(300, states.shape[1], hidden, action.shape[1])
    stack = torch.arange(len(residual)).unsqueeze(1)

    def loss(index: Tensor) -> Tensor:
        away = (action[index] - mean[stack, index]) / deviation
        found: Tensor = (slope(states[index]) * away).sum(-1)
        return (found - residual[stack, index] / unit).square().mean(1)

    folds.fit(slope, loss, stage + 1)
    return FirstOrder(folds.own(mean), folds.own(evaluate(slope, states) * unit.unsqueeze(-1) / deviation))
