"""DPO: learning from pairs of a chosen and a rejected outcome of one context."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from ..objective import POSITIVE, declare
from ..rows import Setting, full_precision, mean, per_run, row_weight
from .ratios import log_ratio, pair_metrics


@declare({"beta": POSITIVE})
def dpo(
    logp_chosen: Tensor,
    logp_rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    *,
    beta: Setting = 0.1,
    weight: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Make the chosen outcome gain on the rejected one, relative to the reference.

    Rafailov et al., *Direct preference optimization*, arXiv 2305.18290, Eq. 7::

        r(y) = log pi(y|x) - log pi_ref(y|x)
        loss = -E[log sigmoid(beta (r(chosen) - r(rejected)))]

    Only the difference counts: both outcomes may lose probability while the margin grows. With one class there are no
    pairs, and the loss is zero.

    Args:
        logp_chosen: `(*runs, P)`, log pi of each pair's chosen outcome in nats.
        logp_rejected: `(*runs, P)`, log pi of its rejected outcome.
        ref_chosen: `(*runs, P)`, log pi_ref of the chosen outcome.
        ref_rejected: `(*runs, P)`, log pi_ref of the rejected outcome.
        beta: inverse temperature, above 0. A number or `(*runs, 1)`.
        weight: `(*runs, P)`, at least 0: the averages are weighted.

    Returns:
        The loss `(*runs,)`, and detached metrics `(*runs,)`: `accept_logp` and `reject_logp`, `accept_reward` and
        `reject_reward` (means of beta r), `margin` (their difference), `accuracy` (share of pairs with r in order).

    Raises:
        ValueError: a hyperparameter of another shape.
    """
    logp_chosen, logp_rejected = full_precision(logp_chosen), full_precision(logp_rejected)
    weight = row_weight(logp_chosen, weight)
    beta = per_run(beta, logp_chosen)

    chosen, rejected = log_ratio(logp_chosen, ref_chosen, weight), log_ratio(logp_rejected, ref_rejected, weight)
    loss = -mean(logsigmoid(beta * (chosen - rejected)), weight)

    return loss, pair_metrics(loss, (logp_chosen, logp_rejected), (beta * chosen, beta * rejected), weight)
