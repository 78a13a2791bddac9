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
            {"logp": "logp", "label": "label", "kl": "forward_kl"},
            {"alpha": _SHARE, "beta": _NOT_NEGATIVE, "normalize": Words(("joint", "set"))},
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
