"""What objectives of single labels share: the metrics of both classes, and what lies half-way between them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..rows import detached, mean


def class_metrics(
    loss: Tensor, logp: Tensor, reward: Tensor, classes: tuple[Tensor, Tensor], **more: Tensor
) -> dict[str, Tensor]:
    """Return the metrics of both classes, detached, in the shape of the loss `(*runs,)`.

    `accept_logp` and `reject_logp`, `accept_reward` and `reject_reward`: means, 0 where the class is absent.

    Args:
        loss: `(*runs,)`.
        logp: `(*runs, B)`.
        reward: `(*runs, B)`, in the units of the objective, finite on unlabelled rows.
        classes: the weights of the accepted and of the rejected rows, `(*runs, B)` each.
        more: other metrics, added as they are.
    """
    accepted, rejected = classes
    return detached(
        loss,
        accept_logp=mean(logp, accepted),
        reject_logp=mean(logp, rejected),
        accept_reward=mean(reward, accepted),
        reject_reward=mean(reward, rejected),
        **more,
    )


def half_way(reward: Tensor, accepted: Tensor, rejected: Tensor) -> Tensor:
    """Return the mean of both classes' means, or the mean of the one that is there: (*runs, B) -> (*runs,).

    Rows of infinite reward are left out: an outcome that the policy no longer gives would move it to infinity.
    """
    accepted, rejected = (torch.where(reward.isfinite(), rows, 0) for rows in (accepted, rejected))
    kinds = (accepted != 0).any(-1).to(reward.dtype) + (rejected != 0).any(-1).to(reward.dtype)
    return (mean(reward, accepted) + mean(reward, rejected)) / kinds.clamp(min=1)
