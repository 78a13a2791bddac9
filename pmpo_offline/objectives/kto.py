"""KTO: learning from single accepted and rejected outcomes, as gains and losses against a reference point."""

from __future__ import annotations

from torch import Tensor, sigmoid

from .rows import Setting, classes, detached, full_precision, mean, per_run, present, reduced


def kto(
    logp: Tensor,
    ref_logp: Tensor,
    label: Tensor,
    *,
    kl: Tensor,
    beta: Setting = 0.1,
    desirable_weight: Setting = 1.0,
    undesirable_weight: Setting = 1.0,
    weight: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Push accepts above the reference point and rejects below it, with a saturating utility.

    Ethayarajh et al., *KTO: Model alignment as prospect theoretic optimization*, arXiv 2402.01306, Eq. 7 of its
    first version, averaged over the labelled rows of both classes together::

        r(y) = log pi(y|x) - log pi_ref(y|x)
        loss = E[w_D (1 - sigmoid(beta (r - kl)))  on accepts,   w_U (1 - sigmoid(beta (kl - r)))  on rejects]

    Args:
        logp: `(*runs, B)`, log pi(y|x) in nats.
        ref_logp: `(*runs, B)`, log pi_ref(y|x).
        label: `(*runs, B)`, +1 accept, -1 reject, 0 unlabelled; or bool, True accept, False reject.
        kl: `(*runs,)`, the reference point, an estimate of KL(pi || pi_ref) in nats; used as max(0, kl), no gradient.
        beta: inverse temperature, above 0. A number or `(*runs, 1)`.
        desirable_weight: w_D; the authors advise w_D n_D / (w_U n_U) between 1 and 4/3. A number or `(*runs, 1)`.
        undesirable_weight: w_U. A number or `(*runs, 1)`.
        weight: `(*runs, B)`, at least 0: the averages are weighted, and the counts are sums of weights.

    Returns:
        The loss `(*runs,)`, and detached metrics `(*runs,)`: `accept_logp` and `reject_logp`, `accept_reward` and
        `reject_reward` (means of beta r; 0 where the class is absent), `kl`.

    Raises:
        ValueError: an unreduced `kl`, or a hyperparameter of another shape.
    """
    logp, kl = full_precision(logp), reduced(kl, logp).detach().clamp(min=0)
    accepted, rejected = classes(label, logp, weight)
    labelled = accepted + rejected
    beta = per_run(beta, logp)
    desirable_weight, undesirable_weight = per_run(desirable_weight, logp), per_run(undesirable_weight, logp)

    reward = present(logp - ref_logp, labelled)
    gain = beta * (reward - kl.unsqueeze(-1))
    desirable = mean(desirable_weight * sigmoid(-gain), accepted, over=labelled)
    undesirable = mean(undesirable_weight * sigmoid(gain), rejected, over=labelled)
    loss = desirable + undesirable

    return loss, detached(
        loss,
        accept_logp=mean(logp, accepted),
        reject_logp=mean(logp, rejected),
        accept_reward=mean(beta * reward, accepted),
        reject_reward=mean(beta * reward, rejected),
        kl=kl,
    )
