"""What is minimised: pure functions of tensors, one a file, the same for bandits, control and language models.

>>> import torch
>>> logp, label = torch.tensor([-1.0, -2.0, -4.0]), torch.tensor([1.0, 1.0, -1.0])
>>> loss, metrics = pmpo(logp, label, kl=torch.tensor(0.5), alpha=0.5, beta=1.0, normalize="joint")
>>> loss  # -0.5 * (-1 - 2) / 3 + 0.5 * (-4) / 3 + 1.0 * 0.5
tensor(0.3333)
"""

from __future__ import annotations

from . import divergences, duals, stability
from .awr import awr
from .bc import bc
from .bc_accepts import bc_accepts
from .bco import bco, bco_shift
from .crr import binary_crr
from .dpo import dpo
from .expectile import expectile_loss
from .ipo import ipo, ipo_length_normalized
from .kto import kto, kto_reference_point, kto_weight_range
from .mpo import mpo
from .nca import nca
from .objective import Interval, Objective, Words
from .pmpo import pmpo
from .td3_bc import td3_bc
from .unlikelihood import unlikelihood

_POSITIVE, _NOT_NEGATIVE, _SHARE = Interval(0, open=True), Interval(0), Interval(0, 1)
_PAIRS = {name: name for name in ("logp_chosen", "logp_rejected", "ref_chosen", "ref_rejected")}

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
                "reject_mass": Interval(0, 1, open=True),
                "floor": _NOT_NEGATIVE,
                "divergence": Words(("behavior", "forward", "reverse", "alpha", "renyi")),
                "order": _SHARE,
                "over": Words(("all", "labelled")),
            },
            # Which divergence the caller hands over as `kl`. "behavior": the forward one from whatever made the data,
            # by cloning it, -E[log pi] (the paper's BC term). The others compare with the reference policy; `order` is
            # that of "alpha" and "renyi"; `over`: on all rows or on the labelled ones.
            caller={"divergence": "behavior", "order": 0.5, "over": "all"},
            bound=stability.beta_min,
        ),
        Objective("bc", bc, {"logp": "logp"}, {}),
        Objective("bc_accepts", bc_accepts, {"logp": "logp", "label": "label"}, {}),
        Objective("binary_crr", binary_crr, {"logp": "logp", "advantage": "advantage"}, {}),
        Objective(
            "awr",
            awr,
            {"logp": "logp", "advantage": "advantage"},
            {"temperature": _POSITIVE, "max_weight": _POSITIVE},
        ),
        Objective("unlikelihood", unlikelihood, {"logp": "logp", "label": "label"}, {"alpha": _SHARE}),
        Objective(
            "mpo",
            mpo,
            {"logp": "group_logp", "score": "group_score"},
            {"temperature": _POSITIVE, "epsilon": _NOT_NEGATIVE},
        ),
        Objective("dpo", dpo, _PAIRS, {"beta": _POSITIVE}),
        Objective("ipo", ipo, _PAIRS, {"beta": _POSITIVE}),
        Objective(
            "ipo_length_normalized",
            ipo_length_normalized,
            {**_PAIRS, "length_chosen": "length_chosen", "length_rejected": "length_rejected"},
            {"beta": _POSITIVE},
            families=("language",),
        ),
        Objective("nca", nca, _PAIRS, {"beta": _POSITIVE}),
        Objective(
            "kto",
            kto,
            {"logp": "logp", "ref_logp": "ref_logp", "label": "label", "kl": "policy_kl"},
            {"beta": _POSITIVE, "desirable_weight": _NOT_NEGATIVE, "undesirable_weight": _NOT_NEGATIVE},
        ),
        Objective(
            "bco",
            bco,
            {"logp": "logp", "ref_logp": "ref_logp", "label": "label"},
            {"beta": _POSITIVE},
            optional={"shift": "reward_shift"},
        ),
        Objective(
            "td3_bc",
            td3_bc,
            {"policy_value": "policy_value", "distance": "distance"},
            {"alpha": _NOT_NEGATIVE},
            families=("control",),
        ),
    )
}
"""Every objective by name."""

__all__ = [
    "OBJECTIVES",
    "Interval",
    "Objective",
    "Words",
    "awr",
    "bc",
    "bc_accepts",
    "bco",
    "bco_shift",
    "binary_crr",
    "divergences",
    "dpo",
    "duals",
    "expectile_loss",
    "ipo",
    "ipo_length_normalized",
    "kto",
    "kto_reference_point",
    "kto_weight_range",
    "mpo",
    "nca",
    "pmpo",
    "stability",
    "td3_bc",
    "unlikelihood",
]
