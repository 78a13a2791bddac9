"""NCA: learning from pairs by an absolute reward of each outcome, so that the chosen one does not sink."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from ..objective import POSITIVE, declare
from ..rows import Setting, mean, per_run
from .ratios import Pairs


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
    pairs = Pairs.of(logp_chosen, logp_rejected, ref_chosen, ref_rejected, weight)
    beta = per_run(beta, pairs.chosen)

    chosen, rejected = beta * pairs.chosen, beta * pairs.rejected
    loss = -mean(logsigmoid(chosen) + (logsigmoid(-chosen) + logsigmoid(-rejected)) / 2, pairs.weight)

    return loss, pairs.metrics(loss, chosen, rejected)
