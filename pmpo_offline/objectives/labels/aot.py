"""AOT on single labels: the whole distribution of accepted rewards should exceed that of rejected ones."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ..objective import POSITIVE, declare
from ..rows import Setting, classes, full_precision, log_ratio, per_run, present
from .classes import class_metrics


@declare(
    {"beta": POSITIVE},
    exempt={
        "exact stacking": "cumulative sums round differently in a stack",
        "one class teaches": "it compares the two classes",
        "flipped labels": "it is no mean over rows",
    },
)
def aot_unpaired(
    logp: Tensor, ref_logp: Tensor, label: Tensor, *, beta: Setting = 0.1, weight: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Make every quantile of the accepts' log-ratios exceed the same quantile of the rejects'.

    Melnyk et al., *Distributional preference alignment of LLMs via optimal transport*, arXiv 2406.05882, the loss
    "aot_unpaired" of TRL's DPO trainer (read there), with q_a(u) and q_r(u) the quantiles of r = log pi - log pi_ref
    among accepts and among rejects::

        loss = E_u[-log sigmoid(beta (q_a(u) - q_r(u)))],   u uniform on [0, 1]

    With as many accepts as rejects this is their sorted log-ratios, subtracted one by one; otherwise each is compared
    with the ranks that its own share of its class covers, by the coupling of one-dimensional optimal transport. It is
    first-order stochastic dominance made smooth. With one class there is nothing to compare, and the loss is zero.

    Args:
        logp: `(*runs, B)`, log pi(y|x) in nats.
        ref_logp: `(*runs, B)`, log pi_ref(y|x).
        label: `(*runs, B)`, +1 accept, -1 reject, 0 unlabelled; or bool, True accept, False reject.
        beta: inverse temperature, above 0. A number or `(*runs, 1)`.
        weight: `(*runs, B)`, at least 0: the quantiles are weighted.

    Returns:
        The loss `(*runs,)`, and detached metrics `(*runs,)`: `accept_logp` and `reject_logp`, `accept_reward` and
        `reject_reward` (means of beta r; 0 where the class is absent), `dominated` (share of the quantiles at which
        the accepts exceed the rejects).

    Raises:
        ValueError: labels that are none, or a hyperparameter out of its range or of another shape.
    """
    logp = full_precision(logp)
    accepted, rejected = classes(label, logp, weight)

    reward = per_run(beta, logp) * log_ratio(logp, ref_logp, accepted + rejected)
    (chosen, upto), (refused, upto_refused) = _quantiles(reward, accepted), _quantiles(reward, rejected)
    # Between two neighbouring steps of either distribution function both quantiles are constant.
    steps = torch.cat([upto, upto_refused], -1).sort(-1).values
    width = steps.diff(dim=-1, prepend=torch.zeros_like(steps[..., :1]))
    width = torch.where((accepted != 0).any(-1, keepdim=True) & (rejected != 0).any(-1, keepdim=True), width, 0)
    middle = steps - width / 2
    gap = _at(chosen, upto, middle) - _at(refused, upto_refused, middle)
    loss = -(width * logsigmoid(present(gap, width))).sum(-1)

    both = (accepted, rejected)
    return loss, class_metrics(loss, logp, reward, both, dominated=(width * (gap > 0)).sum(-1))


def _quantiles(reward: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rewards `(*runs, B)` in rising order, and the share of the class's weight up to each, in [0, 1]."""
    ordered, index = reward.sort(dim=-1, stable=True)
    passed = weight.expand_as(reward).gather(-1, index).cumsum(-1)
    total = weight.sum(-1, keepdim=True)
    return ordered, (passed / torch.where(total != 0, total, 1)).detach()


def _at(ordered: Tensor, upto: Tensor, level: Tensor) -> Tensor:
    """Return the values of `ordered` at levels in [0, 1], `(*runs, B)`."""
    if not ordered.shape[-1]:
        return level.new_zeros(level.shape)
    index = torch.searchsorted(upto.contiguous(), level.contiguous()).clamp(max=ordered.shape[-1] - 1)
    return ordered.gather(-1, index)
