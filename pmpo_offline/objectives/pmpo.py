"""PMPO: learning from accepts, from rejects, or from both."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from .rows import Setting, classes, detached, full_precision, mean, reduced, row_weight, scale


def pmpo(
    logp: Tensor,
    label: Tensor,
    kl: Tensor,
    *,
    alpha: Setting = 0.5,
    beta: Setting = 1.0,
    normalize: Literal["joint", "set"] = "joint",
    weight: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Raise the log-probability of accepts, lower that of rejects, stay near the reference.

    Abdolmaleki et al., *Learning from negative feedback, or positive feedback or both*, arXiv 2410.04166, Eq. 10, with
    the sign turned so that it is minimised::

        loss = -alpha E_accept[log pi(y|x)] + (1 - alpha) E_reject[log pi(y|x)] + beta KL(pi_ref || pi)

    It is bounded from below only if beta is large enough: see `stability.beta_min`.

    Args:
        logp: `(*runs, B)`, log pi(y|x) in nats.
        label: `(*runs, B)`, +1 accept, -1 reject, 0 unlabelled; or bool, True accept, False reject.
        kl: `(*runs,)`, KL(pi_ref || pi) in nats, over whichever rows the caller chose (`divergences`).
        alpha: in [0, 1]: 1 learns from accepts only, 0 from rejects only. A number or `(*runs, 1)`.
        beta: weight of the divergence, at least 0. A number or `(*runs, 1)`.
        normalize: "set" averages each class over its own rows, "joint" divides both sums by the count of labelled rows.
        weight: `(*runs, B)`, at least 0: the averages are weighted, and the counts are sums of weights.

    Returns:
        The loss `(*runs,)`, and detached metrics `(*runs,)`: `accept_logp` and `reject_logp` (means of their class, 0
        where it is absent), `kl`, `accept_share` (of the labelled rows), `label_share` (of all rows).

    Raises:
        ValueError: another `normalize`, an unreduced `kl`, or a hyperparameter of another shape.
    """
    if normalize not in ("joint", "set"):
        raise ValueError(f'normalize is "joint" or "set", not {normalize!r}')
    logp, kl = full_precision(logp), reduced(kl, logp)
    accepted, rejected = classes(label, logp, weight)
    labelled = accepted + rejected

    over_accepts, over_rejects = (accepted, rejected) if normalize == "set" else (labelled, labelled)
    accept, reject = mean(logp, accepted, over_accepts), mean(logp, rejected, over_rejects)
    loss = -scale(alpha, accept) + scale(1 - alpha, reject) + scale(beta, kl)

    return loss, detached(
        loss,
        accept_logp=mean(logp, accepted),
        reject_logp=mean(logp, rejected),
        kl=kl,
        accept_share=mean(accepted != 0, labelled),
        label_share=mean(labelled != 0, row_weight(logp, weight)),
    )
