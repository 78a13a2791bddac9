"""SSPO on single labels: unlabelled outcomes take part with the label that the policy's own reward gives them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ..objective import POSITIVE, SHARE, declare
from ..rows import Setting, classes, full_precision, log_ratio, mean, per_run, row_weight, scale
from .classes import class_metrics, half_way


@declare(
    {"beta": POSITIVE, "gamma": SHARE, "prior": SHARE},
    optional={"shift": "reward_shift"},
    running={"reward_shift": "batch_shift"},
    exempt={
        "exact stacking": "softplus rounds the last elements of an array otherwise",
        "unlabelled rows": "they get pseudo-labels",
    },
)
def sspo(
    logp: Tensor,
    ref_logp: Tensor,
    label: Tensor,
    *,
    beta: Setting = 0.1,
    gamma: Setting = 0.5,
    prior: Setting = 0.5,
    shift: Tensor | None = None,
    weight: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Separate accepts from rejects by a threshold on their reward, and push unlabelled rows further to their own side.

    Lee et al., *Semi-supervised preference optimization with limited feedback*, arXiv 2511.00040. The term of the
    unlabelled rows is that of the authors' code; theirs of the labelled ones compares pairs, and is replaced by the
    classification of single labels at the same threshold d, as in `bco`::

        r(y) = beta (log pi(y|x) - log pi_ref(y|x))
        labelled   = E_accept[-log sigmoid(r - d)] + E_reject[-log sigmoid(d - r)]
        unlabelled = E[prior * -log sigmoid(r - d) where r > d,  (1 - prior) * -log sigmoid(d - r) elsewhere]
        loss = gamma labelled + (1 - gamma) unlabelled

    The threshold of least error between two classes of equally spread rewards lies half-way between their means, which
    is used here; the authors estimate densities (paper) or take the least chosen reward (code). They lower gamma during
    training, from 1; here it is fixed. Pseudo-labels confirm what the policy believes: what it believes wrongly, too.

    Args:
        logp: `(*runs, B)`, log pi(y|x) in nats.
        ref_logp: `(*runs, B)`, log pi_ref(y|x).
        label: `(*runs, B)`, +1 accept, -1 reject, 0 unlabelled; or bool, True accept, False reject.
        beta: inverse temperature, above 0. A number or `(*runs, 1)`.
        gamma: weight of the labelled rows, in [0, 1]. A number or `(*runs, 1)`.
        prior: the share of accepts expected among the unlabelled rows, in [0, 1]. A number or `(*runs, 1)`.
        shift: d, `(*runs,)`, without a gradient, as of `bco`; None: half-way between this batch's classes.
        weight: `(*runs, B)`, at least 0: the averages are weighted.

    Returns:
        The loss `(*runs,)`, and detached metrics `(*runs,)`: `accept_logp` and `reject_logp`, `accept_reward` and
        `reject_reward` (means of r; 0 where the class is absent), `shift` (d), `batch_shift` (of these rows),
        `pseudo_accepts` (share of the unlabelled rows above d).

    Raises:
        ValueError: labels that are none, or a hyperparameter out of its range or of another shape.
    """
    logp = full_precision(logp)
    rows = row_weight(logp, weight)
    accepted, rejected = classes(label, logp, weight)
    unlabelled = torch.where(accepted + rejected == 0, rows, 0)
    beta, prior = per_run(beta, logp), per_run(prior, logp)

    reward = beta * log_ratio(logp, ref_logp, rows)
    batch_shift = half_way(reward.detach(), accepted, rejected)
    shift = full_precision(batch_shift if shift is None else shift).detach()
    gain = reward - shift.unsqueeze(-1)
    labelled = mean(softplus(-gain), accepted) + mean(softplus(gain), rejected)
    pseudo = torch.where(gain > 0, prior * softplus(-gain), (1 - prior) * softplus(gain))
    loss = scale(gamma, labelled) + scale(1 - gamma, mean(pseudo, unlabelled))

    return loss, class_metrics(
        loss,
        logp,
        reward,
        (accepted, rejected),
        shift=shift,
        batch_shift=batch_shift,
        pseudo_accepts=mean(gain > 0, unlabelled),
    )
