"""TD3+BC: maximise a learned value while staying near the recorded actions."""

from __future__ import annotations

import torch
from torch import Tensor

from ..objective import NOT_NEGATIVE, declare
from ..rows import Setting, detached, full_precision, mean, per_run, row_weight


@declare({"alpha": NOT_NEGATIVE}, families=("control",))
def td3_bc(
    policy_value: Tensor, distance: Tensor, *, alpha: Setting = 2.5, weight: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Raise the value of the policy's own action and keep it near the recorded one.

    Fujimoto and Gu, *A minimalist approach to offline reinforcement learning*, arXiv 2106.06860, Eq. 3 with the
    normaliser of Eq. 5, at the policy's actions as in the authors' code::

        loss = -lambda E[Q(x, pi(x))] + E[|pi(x) - y|²],    lambda = alpha / E[|Q(x, pi(x))|]

    No gradient flows through lambda, so that the values' scale does not matter. The loss is at least -alpha.

    Args:
        policy_value: `(*runs, B)`, Q of the policy's action, with its gradient.
        distance: `(*runs, B)`, squared distance of that action from the recorded one, the mean over its dimensions.
        alpha: what the values weigh, 0 or more; at 0 it is cloning. A number or `(*runs, 1)`.
        weight: `(*runs, B)`, at least 0: the averages are weighted.

    Returns:
        The loss `(*runs,)`, and detached metrics `(*runs,)`: `policy_value` and `distance` (means of all rows).

    Raises:
        ValueError: an alpha of another shape.
    """
    policy_value, distance = full_precision(policy_value), full_precision(distance)
    rows = row_weight(policy_value, weight)
    value, away = mean(policy_value, rows), mean(distance, rows)
    size = mean(policy_value.detach().abs(), rows)
    climb = per_run(alpha, policy_value).squeeze(-1) * value / torch.where(size != 0, size, 1)
    loss = away - climb

    return loss, detached(loss, policy_value=value, distance=away)
