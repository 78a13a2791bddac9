"""The expectile loss: a mean that leans towards the better outcomes."""

from __future__ import annotations

import torch
from torch import Tensor

from ..rows import Setting, full_precision, mean, per_run


def expectile_loss(value: Tensor, target: Tensor, expectile: Setting = 0.7) -> Tensor:
    """Return the asymmetric squared error whose minimum is the targets' expectile, `(*runs,)`.

    Kostrikov et al., *Offline reinforcement learning with implicit Q-learning*, arXiv 2110.06169, Eq. 5::

        loss = E[|expectile - 1(target < value)| (target - value)²]

    At one half it is half the squared error and the minimum the mean; towards one it is the largest target. A value
    that depends on the state alone, fitted to the values of recorded actions, thus learns what the better of them are
    worth, and no other action has to be valued.

    Args:
        value: `(*runs, B)`, V(x).
        target: `(*runs, B)`, Q(x, y) of the recorded outcomes; no gradient flows through it.
        expectile: above 0 and below 1 (the paper's tau). A number or `(*runs, 1)`.

    Raises:
        ValueError: an expectile of another shape.
    """
    value = full_precision(value)
    above = full_precision(target).detach() - value
    level = per_run(expectile, value)
    return mean(torch.where(above < 0, 1 - level, level) * above.square(), torch.ones_like(value))
