"""SPPO-hard on single labels: regression of the log-ratio to a target above or below the reference."""

from __future__ import annotations

from torch import Tensor

from ..objective import POSITIVE, declare
from ..rows import Setting, classes, full_precision, log_ratio, mean, per_run, squared
from .classes import class_metrics


@declare({"beta": POSITIVE}, exempt={"extreme values": "squares overflow above 1e19 in float32"})
def sppo_unpaired(
    logp: Tensor, ref_logp: Tensor, label: Tensor, *, beta: Setting = 0.1, weight: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Draw accepts to 1/(2 beta) nats above the reference, and rejects to as many below it.

    Wu et al., *Self-play preference optimization*, arXiv 2405.00675, Eq. 4.7 with the winning probabilities 1 and 0, as
    the loss "sppo_hard" of TRL's DPO trainer has it. It is a sum over the two outcomes of a pair, so that single labels
    do::

        r(y) = log pi(y|x) - log pi_ref(y|x)
        loss = E_accept[(r - 1/(2 beta))²] + E_reject[(r + 1/(2 beta))²]

    Each class is averaged over its own rows. Both targets are finite: the loss is bounded by zero, with one class too,
    and a row beyond its target is drawn back.

    Args:
        logp: `(*runs, B)`, log pi(y|x) in nats.
        ref_logp: `(*runs, B)`, log pi_ref(y|x).
        label: `(*runs, B)`, +1 accept, -1 reject, 0 unlabelled; or bool, True accept, False reject.
        beta: inverse of twice the target, above 0. A number or `(*runs, 1)`.
        weight: `(*runs, B)`, at least 0: the averages are weighted.

    Returns:
        The loss `(*runs,)`, and detached metrics `(*runs,)`: `accept_logp` and `reject_logp`, `accept_reward` and
        `reject_reward` (means of beta r, whose targets are 1/2 and -1/2; 0 where the class is absent).

    Raises:
        ValueError: labels that are none, or a hyperparameter out of its range or of another shape.
    """
    logp = full_precision(logp)
    accepted, rejected = classes(label, logp, weight)
    beta = per_run(beta, logp)

    ratio, target = log_ratio(logp, ref_logp, accepted + rejected), 0.5 / beta
    loss = mean(squared(ratio - target), accepted) + mean(squared(ratio + target), rejected)

    return loss, class_metrics(loss, logp, beta * ratio, (accepted, rejected))
