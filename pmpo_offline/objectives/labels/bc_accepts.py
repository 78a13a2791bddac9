"""Behaviour cloning of the accepted rows: what accepts alone can teach."""

from __future__ import annotations

from torch import Tensor

from ..objective import declare
from ..rows import classes, detached, full_precision, mean, row_weight


@declare(exempt={"rejects sink": "it learns from accepts alone"})
def bc_accepts(logp: Tensor, label: Tensor, weight: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """Raise the log-probability of the accepted rows: `loss = -E_accept[log pi(y|x)]`.

    PMPO (arXiv 2410.04166, Eq. 10) with alpha = 1, beta = 0 and normalize = "set". It is `bc` on the accepts; binary
    CRR differs by its divisor, all rows, so that its steps shrink with the share of accepts. Rejects teach it nothing,
    and without accepts the loss is zero.

    Args:
        logp: `(*runs, B)`, log pi(y|x) in nats.
        label: `(*runs, B)`, +1 accept, -1 reject, 0 unlabelled; or bool, True accept, False reject.
        weight: `(*runs, B)`, at least 0: the average is weighted.

    Returns:
        The loss `(*runs,)`, and detached metrics `(*runs,)`: `accept_logp`, the mean of the accepts (0 where there are
        none), and `accept_share` (of all rows).
    """
    logp = full_precision(logp)
    accepted, _ = classes(label, logp, weight)
    average = mean(logp, accepted)
    loss = -average

    return loss, detached(loss, accept_logp=average, accept_share=mean(accepted != 0, row_weight(logp, weight)))
