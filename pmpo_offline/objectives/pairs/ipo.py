"""IPO: learning from pairs by regression of the margin onto a finite target, with and without lengths."""

from __future__ import annotations

import torch
from torch import Tensor

from ..objective import POSITIVE, declaration, declare
from ..rows import Setting, full_precision, mean, per_run, squared
from .ratios import Pairs


@declare({"beta": POSITIVE}, exempt={"extreme values": "it squares the margin, and float32 ends at 1e38"})
def ipo(
    logp_chosen: Tensor,
    logp_rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    *,
    beta: Setting = 0.1,
    weight: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Bring each pair's margin to 1 / (2 beta), no further: DPO with a square in place of the logarithm.

    Azar et al., *A general theoretical paradigm to understand learning from human preferences*, arXiv 2310.12036,
    Eq. 17, with tau called beta::

        r(y) = log pi(y|x) - log pi_ref(y|x)
        loss = E[(r(chosen) - r(rejected) - 1 / (2 beta))^2]

    The log-probabilities are of whole outcomes. Most libraries divide them by lengths under the same name, which is
    another objective: `ipo_length_normalized`. With one class there are no pairs, and the loss is zero.

    Args:
        logp_chosen: `(*runs, P)`, log pi of each pair's chosen outcome in nats.
        logp_rejected: `(*runs, P)`, log pi of its rejected outcome.
        ref_chosen: `(*runs, P)`, log pi_ref of the chosen outcome.
        ref_rejected: `(*runs, P)`, log pi_ref of the rejected outcome.
        beta: strength of the pull towards the reference, above 0. A number or `(*runs, 1)`.
        weight: `(*runs, P)`, at least 0: the averages are weighted.

    Returns:
        The loss `(*runs,)`, and detached metrics `(*runs,)` as of `dpo`: the rewards are beta r, so that the target of
        `margin` is 1/2 at every beta.

    Raises:
        ValueError: a hyperparameter of another shape.
    """
    one = torch.ones_like(full_precision(logp_chosen))
    normalized = declaration(ipo_length_normalized).loss  # without its checks, which `ipo` has made
    return normalized(logp_chosen, logp_rejected, ref_chosen, ref_rejected, one, one, beta=beta, weight=weight)


@declare(
    {"beta": POSITIVE},
    families=("language",),
    exempt={"extreme values": "it squares the margin, and float32 ends at 1e38"},
)
def ipo_length_normalized(
    logp_chosen: Tensor,
    logp_rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    length_chosen: Tensor,
    length_rejected: Tensor,
    *,
    beta: Setting = 0.1,
    weight: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """IPO of the log-ratio per token, as TRL and HALOs compute it::

        loss = E[(r(chosen) / |chosen| - r(rejected) / |rejected| - 1 / (2 beta))^2]

    The division is not in the paper; TRL reports that its authors confirmed it for their experiments. Lengths of 1
    give `ipo`. A beta of one form is no beta of the other: here the target is a margin per token.

    Args:
        logp_chosen: `(*runs, P)`, log pi of each pair's chosen outcome in nats, summed over its tokens.
        logp_rejected: `(*runs, P)`, log pi of its rejected outcome.
        ref_chosen: `(*runs, P)`, log pi_ref of the chosen outcome.
        ref_rejected: `(*runs, P)`, log pi_ref of the rejected outcome.
        length_chosen: `(*runs, P)`, tokens of the chosen outcome. Below 1 counts as 1: nothing was said, r is 0.
        length_rejected: `(*runs, P)`, tokens of the rejected outcome.
        beta: strength of the pull towards the reference, above 0. A number or `(*runs, 1)`.
        weight: `(*runs, P)`, at least 0: the averages are weighted.

    Returns:
        The loss `(*runs,)`, and detached metrics `(*runs,)` as of `dpo`: the rewards are beta r / length, so that the
        target of `margin` is 1/2 at every beta.

    Raises:
        ValueError: a hyperparameter of another shape.
    """
    pairs = Pairs.of(logp_chosen, logp_rejected, ref_chosen, ref_rejected, weight)
    beta = per_run(beta, pairs.chosen)

    chosen = pairs.chosen / _length(length_chosen, pairs.weight)
    rejected = pairs.rejected / _length(length_rejected, pairs.weight)
    loss = mean(squared(chosen - rejected - 1 / (2 * beta)), pairs.weight)

    return loss, pairs.metrics(loss, beta * chosen, beta * rejected)


def _length(length: Tensor, weight: Tensor) -> Tensor:
    """Return lengths of at least 1, and 1 on the pairs of weight zero: divisors of unused pairs must be sound too."""
    return torch.where(weight != 0, length, 1).clamp(min=1).to(weight.dtype)
