"""APO-down: for pairs of which even the chosen outcome is worse than what the policy gives by itself."""

from __future__ import annotations

from torch import Tensor, sigmoid

from ..objective import POSITIVE, declare
from ..rows import Setting, mean, per_run
from .ratios import Pairs


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
    pairs = Pairs.of(logp_chosen, logp_rejected, ref_chosen, ref_rejected, weight)
    beta = per_run(beta, pairs.chosen)

    chosen, rejected = beta * pairs.chosen, beta * pairs.rejected
    loss = mean(sigmoid(chosen) + sigmoid(rejected - chosen), pairs.weight)

    return loss, pairs.metrics(loss, chosen, rejected)
