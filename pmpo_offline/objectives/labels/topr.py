"""TOPR: REINFORCE on recorded outcomes whose rejects count no more than the policy still produces them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..objective import declare
from ..rows import classes, full_precision, log_ratio, mean
from .classes import class_metrics


@declare()
def topr(
    logp: Tensor, ref_logp: Tensor, label: Tensor, weight: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Clone the accepts, and lower the rejects by their truncated importance weight.

    Le Roux et al., *Tapered off-policy REINFORCE*, arXiv 2503.14286, its update for rewards of +1 and -1, averaged over
    the labelled rows (formula from summaries and third-party code, not checked against the paper)::

        gradient = E_labelled[-1[y accepted] grad log pi(y|x) + 1[y rejected] min(pi / mu, 1) grad log pi(y|x)]

    with mu the policy that made the data. The authors stop the gradient of the weight; the loss here is the function
    that has this gradient, so that its value can be followed. In r = log pi - log mu::

        loss = E_labelled[-1[y accepted] log pi(y|x) + 1[y rejected] (exp(r) if r <= 0 else 1 + r)]

    Of a reject it is at least 0 (Proposition 3.2, by the same summaries): as the policy leaves it the push fades with
    pi / mu, so that neither a divergence nor a bound on it is needed.

    Args:
        logp: `(*runs, B)`, log pi(y|x) in nats.
        ref_logp: `(*runs, B)`, log mu(y|x): of the behaviour, or a clone of it.
        label: `(*runs, B)`, +1 accept, -1 reject, 0 unlabelled; or bool, True accept, False reject.
        weight: `(*runs, B)`, at least 0: the averages are weighted.

    Returns:
        The loss `(*runs,)`, and detached metrics `(*runs,)`: `accept_logp` and `reject_logp`, `accept_reward` and
        `reject_reward` (means of r; 0 where the class is absent), `reject_weight` (mean truncated weight).
    """
    logp = full_precision(logp)
    accepted, rejected = classes(label, logp, weight)
    labelled = accepted + rejected

    ratio = log_ratio(logp, ref_logp, labelled)
    truncated = ratio.clamp(max=0).exp()
    tapered = torch.where(ratio > 0, 1 + ratio, truncated)
    loss = -mean(logp, accepted, over=labelled) + mean(tapered, rejected, over=labelled)

    both = (accepted, rejected)
    return loss, class_metrics(loss, logp, ratio, both, reject_weight=mean(truncated, rejected))
