"""APO-down: for pairs of which even the chosen outcome is worse than what the policy gives by itself."""

from __future__ import annotations

from torch import Tensor, sigmoid

from ..objective import POSITIVE, declare
from ..rows import Setting, full_precision, mean, per_run, row_weight
from .ratios import log_ratio, pair_metrics


@declare(
    {"beta": POSITIVE},
    exempt={
        "exact stacking": "sigmoid rounds the last elements of an array otherwise",
        "gradient everywhere": "at the reference the two pushes on the chosen outcome cancel",
    },
)
def apo_down(
    logp_chosen: Tensor,
    logp_rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    *,
    beta: Setting = 0.1,
    weight: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Lower both outcomes of a pair, the rejected one more.

    D'Oosterlinck et al., *Anchored preference optimization*, arXiv 2408.06266, Eq. 8 (APO-down), the loss "apo_down" of
    TRL's DPO trainer (read there)::

        r(y) = log pi(y|x) - log pi_ref(y|x)
        loss = E[sigmoid(beta r(chosen)) + 1 - sigmoid(beta (r(chosen) - r(rejected)))]

    It is between 0 and 2. With one class there are no pairs, and the loss is zero.

    Args:
        logp_chosen: `(*runs, P)`, log pi of each pair's chosen outcome in nats.
        logp_rejected: `(*runs, P)`, log pi of its rejected outcome.
        ref_chosen: `(*runs, P)`, log pi_ref of the chosen outcome.
        ref_rejected: `(*runs, P)`, log pi_ref of the rejected outcome.
        beta: inverse temperature, above 0. A number or `(*runs, 1)`.
        weight: `(*runs, P)`, at least 0: the averages are weighted.

    Returns:
        The loss `(*runs,)`, and detached metrics `(*runs,)` as of `dpo`; the rewards are beta r.

    Raises:
        ValueError: a hyperparameter of another shape.
    """
    logp_chosen, logp_rejected = full_precision(logp_chosen), full_precision(logp_rejected)
    weight = row_weight(logp_chosen, weight)
    beta = per_run(beta, logp_chosen)

    chosen = beta * log_ratio(logp_chosen, ref_chosen, weight)
    rejected = beta * log_ratio(logp_rejected, ref_rejected, weight)
    loss = mean(sigmoid(chosen) + sigmoid(rejected - chosen), weight)

    return loss, pair_metrics(loss, (logp_chosen, logp_rejected), (chosen, rejected), weight)
