"""NPO: unlearning of the rejected outcomes, at a pace that fades as the policy leaves them."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from ..objective import NOT_NEGATIVE, POSITIVE, declare
from ..rows import Setting, classes, full_precision, log_ratio, mean, per_run, scale
from .classes import class_metrics


@declare(
    {"beta": POSITIVE, "retain": NOT_NEGATIVE},
    variants={"retaining the accepts": {"retain": 1.0}},
    exempt={
        "accepts rise": "it learns from rejects alone",
        "exact stacking": "softplus rounds the last elements of an array otherwise",
    },
)
def npo(
    logp: Tensor,
    ref_logp: Tensor,
    label: Tensor,
    *,
    beta: Setting = 0.1,
    retain: Setting = 0.0,
    weight: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Lower the rejects relative to the reference, as DPO would if their chosen partners were left out.

    Zhang et al., *Negative preference optimization*, arXiv 2404.05868, its NPO loss; with `retain`, its loss on what is
    to be retained, here the accepts (formulas from summaries and third-party code, not checked against the paper)::

        r(y) = log pi(y|x) - log pi_ref(y|x)
        loss = (2 / beta) E_reject[log(1 + exp(beta r))] - retain E_accept[log pi(y|x)]

    The push is that of gradient ascent times 2 sigmoid(beta r): 1 at the reference, fading behind it. As beta goes to 0
    it is gradient ascent on the rejects; the authors show that a larger one slows the collapse exponentially. It has no
    term of its own that holds other outcomes in place.

    Args:
        logp: `(*runs, B)`, log pi(y|x) in nats.
        ref_logp: `(*runs, B)`, log pi_ref(y|x).
        label: `(*runs, B)`, +1 accept, -1 reject, 0 unlabelled; or bool, True accept, False reject.
        beta: inverse temperature, above 0. A number or `(*runs, 1)`.
        retain: weight of the accepts' likelihood, at least 0. A number or `(*runs, 1)`.
        weight: `(*runs, B)`, at least 0: the averages are weighted.

    Returns:
        The loss `(*runs,)`, and detached metrics `(*runs,)`: `accept_logp` and `reject_logp`, `accept_reward` and
        `reject_reward` (means of beta r; 0 where the class is absent).

    Raises:
        ValueError: labels that are none, or a hyperparameter out of its range or of another shape.
    """
    logp = full_precision(logp)
    accepted, rejected = classes(label, logp, weight)
    beta = per_run(beta, logp)

    reward = beta * log_ratio(logp, ref_logp, accepted + rejected)
    loss = mean(2 / beta * softplus(reward), rejected) - scale(retain, mean(logp, accepted))

    return loss, class_metrics(loss, logp, reward, (accepted, rejected))
