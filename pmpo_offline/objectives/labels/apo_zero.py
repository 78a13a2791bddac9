"""APO-zero on single labels: KTO whose reference point is fixed at zero."""

from __future__ import annotations

from torch import Tensor

from ..objective import NOT_NEGATIVE, POSITIVE, declaration, declare
from ..rows import Setting
from .kto import kto


@declare(
    {"beta": POSITIVE, "desirable_weight": NOT_NEGATIVE, "undesirable_weight": NOT_NEGATIVE},
    exempt=declaration(kto).exempt,
)
def apo_zero_unpaired(
    logp: Tensor,
    ref_logp: Tensor,
    label: Tensor,
    *,
    beta: Setting = 0.1,
    desirable_weight: Setting = 1.0,
    undesirable_weight: Setting = 1.0,
    weight: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Raise accepts above the reference and lower rejects below it, with a saturating utility.

    D'Oosterlinck et al., *Anchored preference optimization*, arXiv 2408.06266, Eq. 7 (APO-zero), on single labels as
    the loss "apo_zero_unpaired" of TRL's KTO trainer has it::

        r(y) = log pi(y|x) - log pi_ref(y|x)
        loss = E[w_D (1 - sigmoid(beta r))  on accepts,   w_U sigmoid(beta r)  on rejects]

    averaged over the labelled rows of both classes together: `kto` with kl = 0, which needs no estimate of a
    divergence.

    Args:
        logp: `(*runs, B)`, log pi(y|x) in nats.
        ref_logp: `(*runs, B)`, log pi_ref(y|x).
        label: `(*runs, B)`, +1 accept, -1 reject, 0 unlabelled; or bool, True accept, False reject.
        beta: inverse temperature, above 0. A number or `(*runs, 1)`.
        desirable_weight: w_D, at least 0; for w_D / w_U see `kto_weight_range`. A number or `(*runs, 1)`.
        undesirable_weight: w_U. A number or `(*runs, 1)`.
        weight: `(*runs, B)`, at least 0: the averages are weighted, and the counts are sums of weights.

    Returns:
        The loss `(*runs,)`, and detached metrics `(*runs,)` as of `kto`.

    Raises:
        ValueError: labels that are none, or a hyperparameter out of its range or of another shape.
    """
    loss, metrics = declaration(kto).loss(
        logp,
        ref_logp,
        label,
        kl=logp.new_zeros(()),
        beta=beta,
        desirable_weight=desirable_weight,
        undesirable_weight=undesirable_weight,
        weight=weight,
    )
    del metrics["kl"]  # it is zero
    return loss, metrics
