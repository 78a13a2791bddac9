"""What is minimised: pure functions of tensors, one a file, the same for bandits, control and language models.

>>> import torch
>>> logp, label = torch.tensor([-1.0, -2.0, -4.0]), torch.tensor([1.0, 1.0, -1.0])
>>> loss, metrics = pmpo(logp, label, kl=torch.tensor(0.5), alpha=0.5, beta=1.0, normalize="joint")
>>> loss  # -0.5 * (-1 - 2) / 3 + 0.5 * (-4) / 3 + 1.0 * 0.5
tensor(0.3333)
"""

from __future__ import annotations

from . import divergences, stability
from .bc import bc
from .dpo import dpo
from .kto import kto
from .mpo import mpo
from .objective import Interval, Objective, Words
from .pmpo import pmpo

_POSITIVE, _NOT_NEGATIVE, _SHARE = Interval(0, open=True), Interval(0), Interval(0, 1)

OBJECTIVES: dict[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective(
            "pmpo",
            pmpo,
            {"logp": "logp", "label": "label", "kl": "divergence"},
            {
                "alpha": _SHARE,
                "beta": _NOT_NEGATIVE,
                "normalize": Words(("joint", "set")),
                "divergence": Words(("behavior", "forward", "reverse", "alpha", "renyi")),
                "order": _SHARE,
                "over": Words(("all", "labelled")),
            },
            # Which divergence the caller hands over as `kl`. "behavior": the forward one from whatever made the data, by
            # cloning it, -E[log pi] (the paper's BC term). The others compare with the reference policy; `order` is
            # that of "alpha" and "renyi"; `over`: on all rows or on the labelled ones.
            caller={"divergence": "behavior", "order": 0.5, "over": "all"},
            bound=stability.beta_min,
        ),
        Objective("bc", bc, {"logp": "logp"}, {}),
        Objective(
            "kto",
            kto,
            {"logp": "logp", "ref_logp": "ref_logp", "label": "label", "kl": "policy_kl"},
            {"beta": _POSITIVE, "desirable_weight": _NOT_NEGATIVE, "undesirable_weight": _NOT_NEGATIVE},
        ),
        Objective(
            "dpo",
            dpo,
            {name: name for name in ("logp_chosen", "logp_rejected", "ref_chosen", "ref_rejected")},
            {"beta": _POSITIVE},
        ),
        Objective("mpo", mpo, {"logp": "group_logp", "score": "group_score"}, {"temperature": _POSITIVE}),
    )
}
"""Every objective by name."""

__all__ = [
    "OBJECTIVES",
    "Interval",
    "Objective",
    "Words",
    "bc",
    "divergences",
    "dpo",
    "kto",
    "mpo",
    "pmpo",
    "stability",
]
