"""Binary CRR: cloning of the rows that were better than average."""

from __future__ import annotations

import torch
from torch import Tensor

from ..objective import declare
from ..rows import detached, full_precision, mean, row_weight


@declare()
def binary_crr(logp: Tensor, advantage: Tensor, weight: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """Raise the log-probability of the rows of positive advantage.

    Wang et al., *Critic regularized regression*, arXiv 2006.15134, with the indicator of its Eq. 3::

        loss = -E[1(advantage > 0) log pi(y|x)]

    The average runs over *all* rows. A row of advantage zero is left out, as in the paper. Without positive advantages
    the loss is zero; where all are positive it is `bc`.

    Args:
        logp: `(*runs, B)`, log pi(y|x) in nats.
        advantage: `(*runs, B)`, Q(x, y) - V(x); only its sign counts, no gradient flows through it.
        weight: `(*runs, B)`, at least 0: the average is weighted.

    Returns:
        The loss `(*runs,)`, and detached metrics `(*runs,)`: `accept_logp` (mean of the rows that are raised, 0 where
        there are none), `accept_share` (of all rows).
    """
    logp = full_precision(logp)
    rows = row_weight(logp, weight)
    raised = torch.where(advantage > 0, rows, 0)
    loss = -mean(logp, raised, over=rows)

    return loss, detached(loss, accept_logp=mean(logp, raised), accept_share=mean(raised != 0, rows))
