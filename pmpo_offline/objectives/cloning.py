"""Behaviour cloning: maximum likelihood of the rows it is given."""

from __future__ import annotations

from torch import Tensor

from .objective import declare
from .rows import detached, full_precision, mean, row_weight


@declare()
def bc(logp: Tensor, weight: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """Raise the log-probability of every row: `loss = -E[log pi(y|x)]`.

    On the accepted rows alone it is PMPO with alpha = 1, beta = 0, which is binary CRR (Wang et al., arXiv 2006.15134).

    Args:
        logp: `(*runs, B)`, log pi(y|x) in nats.
        weight: `(*runs, B)`, at least 0: the average is weighted.

    Returns:
        The loss `(*runs,)`, and detached metrics `(*runs,)`: `logp`, the mean.
    """
    logp = full_precision(logp)
    average = mean(logp, row_weight(logp, weight))
    loss = -average

    return loss, detached(loss, logp=average)
