"""Unlikelihood: likelihood of accepts, and likelihood of *not* giving the rejects."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..objective import SHARE, declare
from ..rows import Setting, classes, detached, full_precision, mean, scale

_SURE = 1e-6
"""Below -log p = 1e-6 the penalty continues as its tangent: 1 - p is lost to rounding there, in float32 first."""


@declare({"alpha": SHARE})
def unlikelihood(
    logp: Tensor, label: Tensor, *, alpha: Setting = 0.5, weight: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Raise the probability of accepts, and lower that of rejects the less the rarer they are.

    Welleck et al., *Neural text generation with unlikelihood training*, arXiv 1908.04319, its unlikelihood term on
    the rejects beside the likelihood of the accepts, each averaged over its own class::

        loss = -alpha E_accept[log p(y|x)] - (1 - alpha) E_reject[log(1 - p(y|x))]

    It is bounded from below by zero without a divergence: the slope of a reject, p / (1 - p), fades with p, where
    PMPO's stays. A class that is absent contributes zero.

    For *probabilities* of discrete outcomes (tokens, bins, candidates), where log p is at most 0. A density has no
    1 - p: on continuous actions use PMPO. The probability of a long sequence is so small that nothing is left of the
    slope: give rows that are tokens.

    Args:
        logp: `(*runs, B)`, log p(y|x) in nats, at most 0. As p approaches 1 the penalty of a reject grows without
            bound; from 1 - 1e-6 on it grows along its tangent, so that loss and gradient are finite at p = 1 and lead
            away from it.
        label: `(*runs, B)`, +1 accept, -1 reject, 0 unlabelled; or bool, True accept, False reject.
        alpha: in [0, 1]: 1 learns from accepts only, 0 from rejects only. A number or `(*runs, 1)`.
        weight: `(*runs, B)`, at least 0: the averages are weighted.

    Returns:
        The loss `(*runs,)`, and detached metrics `(*runs,)`: `accept_logp` and `reject_logp` (means of their class, 0
        where it is absent), `reject_penalty` (mean of -log(1 - p) of the rejects).

    Raises:
        ValueError: a hyperparameter of another shape.
    """
    logp = full_precision(logp)
    accepted, rejected = classes(label, logp, weight)

    accept, penalty = mean(logp, accepted), mean(_penalty(logp), rejected)
    loss = -scale(alpha, accept) + scale(1 - alpha, penalty)

    return loss, detached(loss, accept_logp=accept, reject_logp=mean(logp, rejected), reject_penalty=penalty)


def _penalty(logp: Tensor) -> Tensor:
    """Return -log(1 - exp(logp)), exact to rounding on both sides of p = 1/2, and its tangent beyond p = 1 - 1e-6."""
    unsure = logp.clamp(max=-_SURE)
    log_rest = torch.where(unsure > -math.log(2), (-torch.expm1(unsure)).log(), torch.log1p(-unsure.exp()))
    return (logp + _SURE).clamp(min=0) / math.expm1(_SURE) - log_rest
