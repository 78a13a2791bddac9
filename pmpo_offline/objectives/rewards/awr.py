"""AWR: cloning of all rows, weighted by the exponential of their advantage."""

from __future__ import annotations

import torch
from torch import Tensor

from ..objective import POSITIVE, declare
from ..rows import Setting, detached, full_precision, mean, per_run, present, row_weight


@declare({"temperature": POSITIVE, "max_weight": POSITIVE})
def awr(
    logp: Tensor,
    advantage: Tensor,
    *,
    temperature: Setting = 1.0,
    max_weight: Setting = 20.0,
    weight: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Raise the log-probability of every row, of good ones the most.

    Peng et al., *Advantage-weighted regression*, arXiv 1910.00177, the policy's regression in Algorithm 1, with its
    clipped weights::

        loss = -E[min(exp(advantage / temperature), max_weight) log pi(y|x)]

    No row is pushed away, and there are no classes to be absent. Equal advantages give a multiple of `bc`, advantages
    of zero `bc` itself.

    Args:
        logp: `(*runs, B)`, log pi(y|x) in nats.
        advantage: `(*runs, B)`, return or Q(x, y) less V(x); no gradient flows through it. -inf leaves a row out.
        temperature: above 0, in the advantage's units (the paper's beta): small clones the best rows, large all. A
            number or `(*runs, 1)`.
        max_weight: largest weight of a row, above 0. A number or `(*runs, 1)`.
        weight: `(*runs, B)`, at least 0: the average is weighted.

    Returns:
        The loss `(*runs,)`, and detached metrics `(*runs,)`: `logp` (mean of all rows), `mean_weight` (of the
        exponentials), `clipped_share` (rows at `max_weight`).

    Raises:
        ValueError: a hyperparameter of another shape.
    """
    logp = full_precision(logp)
    rows = row_weight(logp, weight)
    # In logarithms, so that no exponential overflows before it is clipped.
    exponent = present(full_precision(advantage), rows).detach() / per_run(temperature, logp)
    ceiling = per_run(max_weight, logp).log()
    factor = torch.minimum(exponent, ceiling).exp()
    loss = -mean(logp, rows * factor, over=rows)

    return loss, detached(
        loss, logp=mean(logp, rows), mean_weight=mean(factor, rows), clipped_share=mean(exponent >= ceiling, rows)
    )
