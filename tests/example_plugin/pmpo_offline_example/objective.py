"""Margin cloning: accepts should be likelier than under the reference by a margin, and rejects less likely."""

from __future__ import annotations

from torch import Tensor

from pmpo_offline.objectives import Interval, Objective


def margin(
    logp: Tensor, ref_logp: Tensor, label: Tensor, *, width: float | Tensor = 1.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the mean hinge loss of the labelled rows::

        loss = E_labelled[max(0, width - label (log pi(y|x) - log pi_ref(y|x)))]

    Args:
        logp: (*runs, B), log pi(y|x) in nats.
        ref_logp: (*runs, B), the same under the reference.
        label: (*runs, B), +1 accept, -1 reject, 0 unlabelled.
        width: the margin in nats, a number or (*runs, 1).
    """
    labelled = (label != 0).to(logp.dtype)
    hinge = (width - label * (logp - ref_logp)).clamp(min=0)
    count = labelled.sum(-1).clamp(min=1)
    loss = (hinge * labelled).sum(-1) / count
    inside = ((hinge > 0) * labelled).sum(-1) / count
    return loss, {"inside_margin": inside.detach()}


MARGIN = Objective(
    "margin",
    margin,
    inputs={"logp": "logp", "ref_logp": "ref_logp", "label": "label"},
    allowed={"width": Interval(0, open=True)},
)
