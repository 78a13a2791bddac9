"""Off-policy returns: what actions turned out to be worth under one policy, from what others went on to do."""

from __future__ import annotations

import torch
from torch import Tensor


def retrace(
    reward: Tensor, goes_on: Tensor, value: Tensor, action_value: Tensor, trace: Tensor, discount: float
) -> Tensor:
    """Return the targets of the actions of a stretch of L steps, (…, L).

    Munos et al., *Safe and efficient off-policy reinforcement learning*, arXiv 1606.02647, Eq. 3 and 4, as a recursion
    from the end of the stretch, where the value alone stands for what follows::

        target_t = r_t + γ (V(s_t+1) + c_t+1 (target_t+1 - Q(s_t+1, a_t+1)))        c = λ min(1, π(a|s) / μ(a|s))

    Args:
        reward: r_t, (…, L).
        goes_on: 0 where the task has ended after the step, so that nothing follows; else 1, (…, L).
        value: V of the state after each step, (…, L).
        action_value: Q of that state and of the action that was taken there, (…, L).
        trace: c there; 0 where none was taken, (…, L). Neither is used after the last step.
        discount: γ.
    """
    targets: list[Tensor] = []
    beyond = torch.zeros_like(reward[..., 0])
    for t in reversed(range(reward.shape[-1])):
        targets.append(reward[..., t] + discount * goes_on[..., t] * (value[..., t] + beyond))
        if t:
            beyond = trace[..., t - 1] * (targets[-1] - action_value[..., t - 1])
    return torch.stack(targets[::-1], dim=-1)
