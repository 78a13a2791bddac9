"""D2O: rejects against what the policy gives by itself, without any accept."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from ..objective import NOT_NEGATIVE, POSITIVE, declare
from ..rows import Setting, classes, full_precision, log_ratio, mean, per_run
from .classes import class_metrics


@declare(
    {"beta": POSITIVE, "alpha": NOT_NEGATIVE},
    families=("control",),
    exempt={"accepts rise": "it learns from rejects alone"},
)
def d2o(
    logp: Tensor,
    ref_logp: Tensor,
    label: Tensor,
    own_logp: Tensor,
    own_ref_logp: Tensor,
    *,
    beta: Setting = 0.1,
    alpha: Setting = 1.0,
    weight: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Make the rejects lose against K outcomes that the policy itself draws in the same context.

    Duan et al., *Negating negatives: alignment with human negative samples via distributional dispreference
    optimization*, arXiv 2403.03419, its loss (formula from a public re-implementation), with one reference policy in
    place of its two::

        r(y) = log pi(y|x) - log pi_ref(y|x)
        loss = -E_reject[log sigmoid(beta (1/K sum_k r(y_k) - alpha r(y)))]

    In the source beta multiplies the first sum alone: its alpha is alpha beta here.

    The policy's own outcomes hold it in place where rejects alone would leave nothing to hold on to. They have to be
    drawn again as it changes, which is cheap for actions and not for texts.

    Args:
        logp: `(*runs, B)`, log pi(y|x) in nats.
        ref_logp: `(*runs, B)`, log pi_ref(y|x).
        label: `(*runs, B)`, +1 accept, -1 reject, 0 unlabelled; or bool, True accept, False reject.
        own_logp: `(*runs, B, K)`, log pi of outcomes drawn from the policy in each row's context, held fixed.
        own_ref_logp: `(*runs, B, K)`, log pi_ref of the same.
        beta: inverse temperature, above 0. A number or `(*runs, 1)`.
        alpha: weight of the rejects' side, at least 0. A number or `(*runs, 1)`.
        weight: `(*runs, B)`, at least 0: the averages are weighted.

    Returns:
        The loss `(*runs,)`, and detached metrics `(*runs,)`: `accept_logp` and `reject_logp`, `accept_reward` and
        `reject_reward` (means of beta r; 0 where the class is absent), `own_reward` (of the policy's own outcomes).

    Raises:
        ValueError: labels that are none, or a hyperparameter out of its range or of another shape.
    """
    logp, own_logp = full_precision(logp), full_precision(own_logp)
    accepted, rejected = classes(label, logp, weight)
    beta, alpha = per_run(beta, logp), per_run(alpha, logp)

    ratio = log_ratio(logp, ref_logp, accepted + rejected)
    own = log_ratio(own_logp, own_ref_logp, rejected.unsqueeze(-1)).mean(-1)
    loss = -mean(logsigmoid(beta * (own - alpha * ratio)), rejected)

    both = (accepted, rejected)
    return loss, class_metrics(loss, logp, beta * ratio, both, own_reward=mean(beta * own, rejected))
