"""DPO: learning from pairs of a chosen and a rejected outcome of one context."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from ..objective import POSITIVE, declare
from ..rows import Setting, mean, per_run
from .ratios import Pairs


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
    pairs = Pairs.of(logp_chosen, logp_rejected, ref_chosen, ref_rejected, weight)
    beta = per_run(beta, pairs.chosen)

    loss = -mean(logsigmoid(beta * (pairs.chosen - pairs.rejected)), pairs.weight)

    return loss, pairs.metrics(loss, beta * pairs.chosen, beta * pairs.rejected)
