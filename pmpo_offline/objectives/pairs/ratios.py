"""Operations on pairs that objectives share: log-ratios against the reference, and metrics of their order.

Shapes are `(*runs, P)`: leading dimensions of stacked runs, then the pairs of a batch. A pair has both classes by
nature, so that no class is ever absent alone; without pairs every loss is zero.
"""

from __future__ import annotations

from torch import Tensor

from ..rows import detached, mean, present


def log_ratio(logp: Tensor, ref_logp: Tensor, weight: Tensor) -> Tensor:
    """Return r = log pi - log pi_ref `(*runs, P)`, zero on the pairs of weight zero, whatever they hold."""
    return present(logp - ref_logp, weight)


def pair_metrics(
    loss: Tensor, logp: tuple[Tensor, Tensor], reward: tuple[Tensor, Tensor], weight: Tensor
) -> dict[str, Tensor]:
    """Return the metrics of pairs (chosen, rejected), detached, in the shape of the loss `(*runs,)`.

    `accept_logp` and `reject_logp`, `accept_reward` and `reject_reward` (means over the pairs), `margin` (the
    difference of the rewards), `accuracy` (share of pairs whose chosen outcome has the larger reward).
    """
    return detached(
        loss,
        accept_logp=mean(logp[0], weight),
        reject_logp=mean(logp[1], weight),
        accept_reward=mean(reward[0], weight),
        reject_reward=mean(reward[1], weight),
        margin=mean(reward[0] - reward[1], weight),
        accuracy=mean(reward[0] > reward[1], weight),
    )
