"""PMPO: learning from accepts, from rejects, or from both."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..objective import NOT_NEGATIVE, SHARE, Interval, Words, declare
from ..rows import Setting, classes, detached, full_precision, mean, per_run, present, reduced, row_weight, scale
from ..stability import beta_min


@declare(
    {
        "alpha": SHARE,
        "beta": NOT_NEGATIVE,
        "normalize": Words(("joint", "set")),
        "reject_mass": Interval(0, 1, open=True),
        "floor": NOT_NEGATIVE,
        "divergence": Words(("behavior", "forward", "reverse", "alpha", "renyi")),
        "order": SHARE,
        "over": Words(("all", "labelled")),
    },
    {"kl": "divergence"},
    # Which divergence the caller passes as `kl`. "behavior": the forward one from the policy that made the data, by
    # cloning it, -E[log pi] (the paper's BC term). The others compare with the reference policy; `order` is that of
    # "alpha" and "renyi"; `over`: on all rows or on the labelled ones.
    caller={"divergence": "behavior", "order": 0.5, "over": "all"},
    bound=beta_min,
    variants={
        "each class by itself": {"normalize": "set"},
        "the derived weight": {"normalize": "set", "reject_mass": 0.4},
        "a floor": {"floor": 1e-3},
    },
)
def pmpo(
    logp: Tensor,
    label: Tensor,
    kl: Tensor,
    *,
    alpha: Setting = 0.5,
    beta: Setting = 1.0,
    normalize: Literal["joint", "set"] = "joint",
    reject_mass: Setting = 1.0,
    floor: Setting = 0.0,
    weight: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Raise the log-probability of accepts, lower that of rejects, stay near the reference.

    Abdolmaleki et al., *Learning from negative feedback, or positive feedback or both*, arXiv 2410.04166, Eq. 10, with
    the sign turned so that it is minimised::

        loss = -alpha E_accept[log pi(y|x)] + (1 - alpha) E_reject[log pi(y|x)] + beta KL(pi_ref || pi)

    It is bounded from below only if beta is large enough: see `stability.beta_min`. Another divergence may take the
    place of the forward one, but then no beta bounds the loss (`stability`).

    **The derived weight.** Where the divergence comes from: rejects enter as p(accept|y) = 1 - p(reject|y), so the
    E-step's target is q(y) ~ pi_ref(y) (1 - p(reject|y)). Fitting the policy to it maximises ::

        E_ref[log pi(y)] - E_ref[p(reject|y) log pi(y)]  =  P_r ( (1 / P_r) E_ref[log pi] - E_reject[log pi] )

    with P_r = E_ref[p(reject|y)], since pi_ref(y) p(reject|y) = P_r p(y|reject). The divergence, -E_ref[log pi] and a
    constant, thus weighs 1 / P_r beside the rejects' own mean: the more rejects the reference produces, the less.
    With `reject_mass` = P_r and `normalize` = "set", beta is measured in that unit: the bound is 1 - alpha whatever P_r
    (`beta_min` times P_r), and alpha = 0, beta = 1 is the E-step's target itself, no mass left on the rejects.

    **The floor.** Below the bound the rejects' log-probability falls without end. With a floor, each reject counts
    log(floor + pi(y|x)) instead, whose gradient fades once pi(y|x) is below the floor: it is pushed no further.

    Args:
        logp: `(*runs, B)`, log pi(y|x) in nats.
        label: `(*runs, B)`, +1 accept, -1 reject, 0 unlabelled; or bool, True accept, False reject.
        kl: `(*runs,)`, KL(pi_ref || pi) or another divergence in nats, over whichever rows the caller chose
            (`divergences`).
        alpha: in [0, 1]: 1 learns from accepts only, 0 from rejects only. A number or `(*runs, 1)`.
        beta: weight of the divergence, at least 0. A number or `(*runs, 1)`.
        normalize: "set" averages each class over its own rows, "joint" divides both sums by the count of labelled rows.
        reject_mass: P_r, by which beta is divided, in (0, 1]; 1 leaves it as it is. A number or `(*runs, 1)`.
        floor: at least 0, a probability, or a density for continuous outcomes; 0 is the unbounded form of the paper. A
            number or `(*runs, 1)`.
        weight: `(*runs, B)`, at least 0: the averages are weighted, and the counts are sums of weights.

    Returns:
        The loss `(*runs,)`, and detached metrics `(*runs,)`: `accept_logp` and `reject_logp` (means of their class, 0
        where it is absent), `kl`, `accept_share` (of the labelled rows), `label_share` (of all rows).

    Raises:
        ValueError: an unreduced `kl`, labels that are none, or a hyperparameter out of its range or of another shape.
            (The values in tensors on a device, and those of hyperparameters in tensors, are not read.)
    """
    logp, kl = full_precision(logp), reduced(kl, logp)
    accepted, rejected = classes(label, logp, weight)
    labelled = accepted + rejected

    over_accepts, over_rejects = (accepted, rejected) if normalize == "set" else (labelled, labelled)
    accept = mean(logp, accepted, over_accepts)
    reject = mean(_raised(present(logp, rejected), floor), rejected, over_rejects)
    loss = -scale(alpha, accept) + scale(1 - alpha, reject) + scale(beta / reject_mass, kl)

    return loss, detached(
        loss,
        accept_logp=mean(logp, accepted),
        reject_logp=mean(logp, rejected),
        kl=kl,
        accept_share=mean(accepted != 0, labelled),
        label_share=mean(labelled != 0, row_weight(logp, weight)),
    )


def _raised(logp: Tensor, floor: Setting) -> Tensor:
    """Return log(floor + exp(logp)); for a floor of zero `logp` itself, bit for bit."""
    if not isinstance(floor, Tensor) and floor == 0:
        return logp
    floor = per_run(floor, logp)
    positive = floor > 0
    return torch.where(positive, torch.logaddexp(torch.where(positive, floor, 1).log(), logp), logp)
