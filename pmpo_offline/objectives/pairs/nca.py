"""NCA: learning from pairs by an absolute reward of each outcome, so that the chosen one does not sink."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from ..objective import POSITIVE, declare
from ..rows import Setting, full_precision, mean, per_run, row_weight
from .ratios import log_ratio, pair_metrics


@declare({"beta": POSITIVE})
def nca(
    logp_chosen: Tensor,
    logp_rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    *,
    beta: Setting = 0.1,
    weight: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Tell the chosen outcome from the reference's own ones, and the rejected one likewise: absolute, not relative.

    Chen et al., *Noise contrastive alignment of language models with explicit rewards*, arXiv 2402.05369, its NCA loss
    for preference pairs::

        r(y) = log pi(y|x) - log pi_ref(y|x)
        loss = -E[log sigmoid(beta r(chosen)) + log sigmoid(-beta r(chosen)) / 2 + log sigmoid(-beta r(rejected)) / 2]

    The half against the chosen outcome makes it noise as well as data: its reward has the finite optimum ln 2, where
    sigmoid is 2/3, while the rejected one is pushed down without end at a fading pace. With one class there are no
    pairs, and the loss is zero.

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
    loss = -mean(logsigmoid(chosen) + (logsigmoid(-chosen) + logsigmoid(-rejected)) / 2, weight)

    return loss, pair_metrics(loss, (logp_chosen, logp_rejected), (chosen, rejected), weight)
