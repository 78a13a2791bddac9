"""AsymRE: off-policy REINFORCE on recorded outcomes, with a baseline below their mean reward."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ..objective import Interval, Words, declare
from ..rows import Setting, classes, detached, full_precision, mean, per_run, present


@declare({"baseline": Interval(-math.inf, 1), "relative_to": Words(("mean", "zero"))})
def asymre(
    logp: Tensor,
    label: Tensor,
    *,
    baseline: Setting = -0.1,
    relative_to: Literal["mean", "zero"] = "mean",
    weight: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weigh every labelled row by its reward, 1 or 0, less a baseline.

    Arnal et al., *Asymmetric REINFORCE for off-policy reinforcement learning*, arXiv 2506.20520, its objective with the
    sign turned, for rewards of 1 (accept) and 0 (reject); formula and theorem from summaries, not checked against the
    paper (the limits stated below are tested here by brute force)::

        loss = -E_labelled[(1[y accepted] - V) log pi(y|x)]

    The rows are recorded, so that V is no mere variance reduction: it says what a reject weighs, -V. This is `pmpo`
    with normalize = "joint", every row labelled and the divergence on the recorded rows, where V = 1 - alpha - beta:
    the gradients are equal.

    At V <= 0 the loss has a minimum. On logits, as long as V is below the mean reward, gradient ascent improves on the
    data and keeps a broad support; above it the policy collapses onto ever fewer outcomes (the paper's theorem;
    `stability.beta_collapse`). The authors advise a V a little below the mean, which is the default here.

    Args:
        logp: `(*runs, B)`, log pi(y|x) in nats.
        label: `(*runs, B)`, +1 accept, -1 reject, 0 unlabelled; or bool, True accept, False reject.
        baseline: V, or V less the mean reward, at most 1. A number or `(*runs, 1)`.
        relative_to: "mean": V is `baseline` plus the accepted share of the labelled rows; "zero": V is `baseline`.
        weight: `(*runs, B)`, at least 0: the averages are weighted.

    Returns:
        The loss `(*runs,)`, and detached metrics `(*runs,)`: `accept_logp` and `reject_logp` (means of their class, 0
        where it is absent), `baseline` (V), `accept_share` (of the labelled rows).

    Raises:
        ValueError: labels that are none, or a hyperparameter out of its range or of another shape.
    """
    logp = full_precision(logp)
    accepted, rejected = classes(label, logp, weight)
    labelled = accepted + rejected

    share = mean(torch.ones_like(labelled), accepted, over=labelled)
    level = per_run(baseline, logp) + (share.unsqueeze(-1) if relative_to == "mean" else 0)
    row = present(logp, labelled)
    loss = -mean((1 - level) * row, accepted, over=labelled) + mean(level * row, rejected, over=labelled)

    return loss, detached(
        loss,
        accept_logp=mean(logp, accepted),
        reject_logp=mean(logp, rejected),
        baseline=level.squeeze(-1),
        accept_share=share,
    )
