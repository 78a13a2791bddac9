"""Conditional cloning: a policy that is given the label, and acts on "accept"."""

from __future__ import annotations

from torch import Tensor

from ..objective import NOT_NEGATIVE, declare
from ..rows import Setting, classes, detached, full_precision, mean, row_weight, scale


@declare(
    {"condition_weight": NOT_NEGATIVE},
    texts=("accept_text", "reject_text"),
    exempt={
        "rejects sink": "it clones all rows, each by its label",
        "unlabelled rows": "they are cloned without a label",
        "flipped labels": "the label is an input of the policy",
    },
)
def conditional(
    logp: Tensor,
    conditional_logp: Tensor,
    label: Tensor,
    *,
    condition_weight: Setting = 1.0,
    weight: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Clone every row, with its label hidden and with its label as an input of the policy.

    Physical Intelligence, *pi*0.6: a VLA that learns from experience* (RECAP), arXiv 2511.14759, its objective for the
    policy, where the improvement indicator is the label (read in re-implementations and summaries, not in the paper);
    with texts it is conditional supervised fine-tuning, `csft` in HALOs::

        loss = -E[log pi(y|x)] - lambda E[1[y labelled] log pi(y|x, label)]

    A control policy has an input for the label. A language model reads it as a text before the prompt, `accept_text` or
    `reject_text`, which are settings of a training on responses.

    Nothing is pushed away: rejects teach what is *not* done on "accept". The policy that acts is pi(y|x, accept), which
    in the limit is the reference given that the outcome is accepted, as with `bc_accepts`; what it adds is that both
    classes, and rows without a label, share one network. Sharper than that (classifier-free guidance) it is not made.

    Args:
        logp: `(*runs, B)`, log pi(y|x) in nats, the label hidden.
        conditional_logp: `(*runs, B)`, log pi(y|x, label), the row's own label shown.
        label: `(*runs, B)`, +1 accept, -1 reject, 0 unlabelled; or bool, True accept, False reject.
        condition_weight: lambda, at least 0. A number or `(*runs, 1)`.
        weight: `(*runs, B)`, at least 0: the averages are weighted.

    Returns:
        The loss `(*runs,)`, and detached metrics `(*runs,)`: `logp` (mean of all rows, the label hidden), `accept_logp`
        and `reject_logp` (means given the label; 0 where the class is absent).

    Raises:
        ValueError: labels that are none, or a hyperparameter out of its range or of another shape.
    """
    logp, conditional_logp = full_precision(logp), full_precision(conditional_logp)
    accepted, rejected = classes(label, logp, weight)
    rows = row_weight(logp, weight)

    given = mean(conditional_logp, accepted + rejected, over=rows)
    loss = -mean(logp, rows) - scale(condition_weight, given)

    return loss, detached(
        loss,
        logp=mean(logp, rows),
        accept_logp=mean(conditional_logp, accepted),
        reject_logp=mean(conditional_logp, rejected),
    )
