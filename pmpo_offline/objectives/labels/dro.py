"""DRO and RPO: regression of the log-ratio to the reward less a value of the context, learned or estimated."""

from __future__ import annotations

import torch
from torch import Tensor

from ..objective import POSITIVE, declaration, declare
from ..rows import Setting, classes, full_precision, log_ratio, mean, per_run, present, squared
from .classes import class_metrics

_SQUARES = {"extreme values": "squares overflow above 1e19 in float32"}


@declare({"temperature": POSITIVE}, families=("control",), exempt=_SQUARES)
def dro(
    logp: Tensor,
    ref_logp: Tensor,
    label: Tensor,
    state_value: Tensor,
    *,
    temperature: Setting = 1.0,
    weight: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Fit the policy to the optimum of a reward with a divergence, given a learned value of each context.

    Richemond et al., *Offline regularised reinforcement learning for large language models alignment*, arXiv
    2405.19107, the loss of DRO-V (formula from a public re-implementation), for rewards R of 1 (accept) and 0
    (reject)::

        loss = E_labelled[(R - V(x) - T (log pi(y|x) - log pi_ref(y|x)))²] / 2

    It is zero at pi(y|x) ~ pi_ref(y|x) exp(R / T), where V is the soft value T log E_ref[exp(R / T)]. V is learned
    beside the policy by the same loss.

    Args:
        logp: `(*runs, B)`, log pi(y|x) in nats.
        ref_logp: `(*runs, B)`, log pi_ref(y|x).
        label: `(*runs, B)`, +1 accept, -1 reject, 0 unlabelled; or bool, True accept, False reject.
        state_value: `(*runs, B)`, V(x); no gradient flows through it.
        temperature: T, above 0: what the divergence weighs. A number or `(*runs, 1)`.
        weight: `(*runs, B)`, at least 0: the averages are weighted.

    Returns:
        The loss `(*runs,)`, and detached metrics `(*runs,)`: `accept_logp` and `reject_logp`, `accept_reward` and
        `reject_reward` (means of T times the log-ratio; 0 where the class is absent), `value` (mean of V).

    Raises:
        ValueError: labels that are none, or a hyperparameter out of its range or of another shape.
    """
    logp = full_precision(logp)
    accepted, rejected = both = classes(label, logp, weight)
    labelled = accepted + rejected

    value = present(full_precision(state_value), labelled).detach()
    reward = per_run(temperature, logp) * log_ratio(logp, ref_logp, labelled)
    rejects = mean(squared(-value - reward), rejected, over=labelled)
    loss = (mean(squared(1 - value - reward), accepted, over=labelled) + rejects) / 2

    return loss, class_metrics(loss, logp, reward, both, value=mean(value, labelled))


@declare(
    {"temperature": POSITIVE},
    exempt={**_SQUARES, "exact stacking": "logarithms round the last elements of an array otherwise"},
)
def rpo(
    logp: Tensor,
    ref_logp: Tensor,
    label: Tensor,
    accept_rate: Tensor,
    *,
    temperature: Setting = 1.0,
    weight: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Fit the policy as `dro` does, with the value of a context estimated from the labels of its own rows.

    Faye et al., *Value-free policy optimization via reward partitioning*, arXiv 2506.13702 (its partition function is
    known to us from a summary): V(x) = T log mean exp(R / T) over the rows of the context x, which for rewards of 1 and
    0 and an accepted share p of its rows is ::

        V(x) = T log(1 - p + p exp(1 / T))

    A context that was recorded once has V = R, and teaches nothing but to stay at the reference.

    Args:
        logp: `(*runs, B)`, log pi(y|x) in nats.
        ref_logp: `(*runs, B)`, log pi_ref(y|x).
        label: `(*runs, B)`, +1 accept, -1 reject, 0 unlabelled; or bool, True accept, False reject.
        accept_rate: `(*runs, B)`, p, the accepted share of the labelled rows of each row's context, in [0, 1].
        temperature: T, above 0. A number or `(*runs, 1)`.
        weight: `(*runs, B)`, at least 0: the averages are weighted.

    Returns:
        The loss `(*runs,)`, and detached metrics `(*runs,)` as of `dro`.

    Raises:
        ValueError: labels that are none, or a hyperparameter out of its range or of another shape.
    """
    heat, rate = per_run(temperature, full_precision(logp)), full_precision(accept_rate).detach()
    value = heat * torch.logaddexp(torch.log1p(-rate), rate.log() + 1 / heat)
    return declaration(dro).loss(logp, ref_logp, label, value, temperature=temperature, weight=weight)
