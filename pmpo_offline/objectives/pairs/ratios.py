"""Operations on pairs that objectives share: log-ratios against the reference, and metrics of their order.

Shapes are `(*runs, P)`: leading dimensions of stacked runs, then the pairs of a batch. A pair has both classes by
nature, so that no class is ever absent alone; without pairs every loss is zero.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..rows import detached, full_precision, log_ratio, mean, row_weight


@dataclass(frozen=True)
class Pairs:
    """Pairs with their log-ratios r = log pi - log pi_ref, zero on the pairs of weight zero, whatever they hold."""

    chosen: Tensor
    """r of the chosen outcome, `(*runs, P)`."""
    rejected: Tensor
    weight: Tensor
    logp: tuple[Tensor, Tensor]
    """log pi of the chosen and the rejected outcome."""

    @classmethod
    def of(
        cls, logp_chosen: Tensor, logp_rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, weight: Tensor | None
    ) -> Pairs:
        """Return pairs from the inputs of an objective, in full precision."""
        logp = full_precision(logp_chosen), full_precision(logp_rejected)
        weight = row_weight(logp[0], weight)
        return cls(log_ratio(logp[0], ref_chosen, weight), log_ratio(logp[1], ref_rejected, weight), weight, logp)

    def metrics(self, loss: Tensor, chosen: Tensor, rejected: Tensor) -> dict[str, Tensor]:
        """Return the metrics of pairs with these rewards, detached, in the shape of the loss `(*runs,)`.

        `accept_logp` and `reject_logp`, `accept_reward` and `reject_reward` (means over the pairs), `margin` (the
        difference of the rewards), `accuracy` (share of pairs whose chosen outcome has the larger reward).
        """
        return detached(
            loss,
            accept_logp=mean(self.logp[0], self.weight),
            reject_logp=mean(self.logp[1], self.weight),
            accept_reward=mean(chosen, self.weight),
            reject_reward=mean(rejected, self.weight),
            margin=mean(chosen - rejected, self.weight),
            accuracy=mean(chosen > rejected, self.weight),
        )
