"""Weighted REINFORCE: the likelihood of accepts, a little, against that of rejects, in full."""

from __future__ import annotations

from torch import Tensor

from ..objective import NOT_NEGATIVE, declare
from ..rows import Setting, classes, detached, full_precision, mean, scale


@declare(
    {"positive_weight": NOT_NEGATIVE},
    variants={"negative samples alone": {"positive_weight": 0.0}},
)
def weighted_reinforce(
    logp: Tensor, label: Tensor, *, positive_weight: Setting = 0.1, weight: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Lower the rejects, and raise the accepts by a smaller weight.

    Zhu et al., *The surprising effectiveness of negative reinforcement in LLM reasoning*, arXiv 2506.01347, the
    W-REINFORCE objective lambda L_PSR + L_NSR for rewards of +1 and -1 (formula from public re-implementations and
    summaries, not from the paper itself)::

        loss = E_labelled[-lambda 1[y accepted] log pi(y|x) + 1[y rejected] log pi(y|x)]

    At lambda = 0 it is negative-sample reinforcement (NSR), at 1 REINFORCE without a baseline. Up to the factor
    1 + lambda it is `pmpo` with normalize = "joint", alpha = lambda / (1 + lambda) and beta = 0.

    The authors draw the rows from the policy itself: a reject that it no longer produces is no longer drawn. On
    *recorded* rows it has no minimum, and nothing stops the rejects' fall but the end of training: it is here as the
    control that the bound of `pmpo` predicts to fail.

    Args:
        logp: `(*runs, B)`, log pi(y|x) in nats.
        label: `(*runs, B)`, +1 accept, -1 reject, 0 unlabelled; or bool, True accept, False reject.
        positive_weight: lambda, at least 0. A number or `(*runs, 1)`.
        weight: `(*runs, B)`, at least 0: the averages are weighted.

    Returns:
        The loss `(*runs,)`, and detached metrics `(*runs,)`: `accept_logp` and `reject_logp` (means of their class, 0
        where it is absent).

    Raises:
        ValueError: labels that are none, or a hyperparameter out of its range or of another shape.
    """
    logp = full_precision(logp)
    accepted, rejected = classes(label, logp, weight)
    labelled = accepted + rejected

    loss = mean(logp, rejected, over=labelled) - scale(positive_weight, mean(logp, accepted, over=labelled))

    return loss, detached(loss, accept_logp=mean(logp, accepted), reject_logp=mean(logp, rejected))
