"""KTO: learning from single accepted and rejected outcomes, as gains and losses against a reference point."""

from __future__ import annotations

from torch import Tensor, sigmoid

from ..objective import NOT_NEGATIVE, POSITIVE, declare
from ..rows import Setting, classes, full_precision, log_ratio, mean, per_run, reduced, row_weight
from .classes import class_metrics


@declare(
    {"beta": POSITIVE, "desirable_weight": NOT_NEGATIVE, "undesirable_weight": NOT_NEGATIVE},
    {"kl": "policy_kl"},
    exempt={"exact stacking": "sigmoid rounds the last elements of an array otherwise"},
)
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

    Rows far on either side of the reference point have no gradient any more: it is sigmoid' and at most beta / 4. A
    class that is absent contributes zero; the other is then pushed one way until it saturates.

    Args:
        logp: `(*runs, B)`, log pi(y|x) in nats.
        ref_logp: `(*runs, B)`, log pi_ref(y|x).
        label: `(*runs, B)`, +1 accept, -1 reject, 0 unlabelled; or bool, True accept, False reject.
        kl: `(*runs,)`, the reference point, KL(pi || pi_ref) in nats: exact, sampled from the policy, or
            `kto_reference_point`; used as max(0, kl), no gradient.
        beta: inverse temperature, above 0. A number or `(*runs, 1)`.
        desirable_weight: w_D, at least 0; for w_D / w_U see `kto_weight_range`. A number or `(*runs, 1)`.
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

    reward = log_ratio(logp, ref_logp, labelled)
    gain = beta * (reward - kl.unsqueeze(-1))
    desirable = mean(desirable_weight * sigmoid(-gain), accepted, over=labelled)
    undesirable = mean(undesirable_weight * sigmoid(gain), rejected, over=labelled)
    loss = desirable + undesirable

    return loss, class_metrics(loss, logp, beta * reward, (accepted, rejected), kl=kl)


def kto_reference_point(logp_mismatched: Tensor, ref_mismatched: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return KTO's batch estimate of its reference point, `max(0, E[log pi(y'|x) - log pi_ref(y'|x)])`.

    Each context x is paired with the outcome y' of *another* row of the batch (Ethayarajh et al., arXiv 2402.01306,
    which takes the next row's). For language that is meaningful: a text that answers another prompt is one the policy
    could produce. An action of another state is not, and says nothing about KL(pi || pi_ref). The estimate is biased
    everywhere, because y' is not drawn from the policy: where the divergence can be had exactly
    (`divergences.gaussian_kl`, `divergences.categorical_kl`), or sampled from the policy, give that to `kto` instead.

    Args:
        logp_mismatched: `(*runs, B)`, log pi of the mismatched outcomes in nats.
        ref_mismatched: `(*runs, B)`, log pi_ref of the same.
        weight: `(*runs, B)`, at least 0: the average is weighted.

    Returns:
        `(*runs,)`, at least 0, without a gradient.
    """
    ratio = full_precision(logp_mismatched).detach() - full_precision(ref_mismatched).detach()
    return mean(ratio, row_weight(ratio, weight)).clamp(min=0)


def kto_weight_range(accepted: float, rejected: float) -> tuple[float, float]:
    """Return the advised range of w_D / w_U: `w_D n_D / (w_U n_U)` in [1, 4/3] (arXiv 2402.01306, Eq. 8).

    Args:
        accepted: n_D, how many rows (or what total weight) are accepted in the data that is trained on.
        rejected: n_U, how many are rejected.

    Returns:
        The smallest and the largest advised ratio; with 100 accepts and 300 rejects, 3 and 4.

    Raises:
        ValueError: a class is absent, so that no ratio balances them.
    """
    if not (accepted > 0 and rejected > 0):
        raise ValueError(f"class weights balance two classes, and there are {accepted} accepts, {rejected} rejects")
    return rejected / accepted, 4 / 3 * rejected / accepted
