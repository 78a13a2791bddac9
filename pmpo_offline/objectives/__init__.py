"""Objectives: pure loss functions of tensors, one per file, the same for bandits, control and language models.

They are in folders by the feedback that they learn from: `labels`, `pairs`, `rewards`; `bc` needs none.

>>> import torch
>>> logp, label = torch.tensor([-1.0, -2.0, -4.0]), torch.tensor([1.0, 1.0, -1.0])
>>> loss, metrics = pmpo(logp, label, kl=torch.tensor(0.5), alpha=0.5, beta=1.0, normalize="joint")
>>> loss  # -0.5 * (-1 - 2) / 3 + 0.5 * (-4) / 3 + 1.0 * 0.5
tensor(0.3333)
"""

from __future__ import annotations

from . import divergences as divergences
from . import stability as stability
from .bc import bc as bc
from .labels.aot import aot_unpaired as aot_unpaired
from .labels.apo_zero import apo_zero_unpaired as apo_zero_unpaired
from .labels.asymre import asymre as asymre
from .labels.bc_accepts import bc_accepts as bc_accepts
from .labels.bco import bco as bco
from .labels.bco import bco_shift as bco_shift
from .labels.conditional import conditional as conditional
from .labels.d2o import d2o as d2o
from .labels.dro import dro as dro
from .labels.dro import rpo as rpo
from .labels.kto import kto as kto
from .labels.kto import kto_reference_point as kto_reference_point
from .labels.kto import kto_weight_range as kto_weight_range
from .labels.npo import npo as npo
from .labels.pmpo import pmpo as pmpo
from .labels.sppo import sppo_unpaired as sppo_unpaired
from .labels.sspo import sspo as sspo
from .labels.topr import topr as topr
from .labels.unlikelihood import unlikelihood as unlikelihood
from .labels.weighted_reinforce import weighted_reinforce as weighted_reinforce
from .noise import debias as debias
from .objective import Interval as Interval
from .objective import Objective as Objective
from .objective import Text as Text
from .objective import Words as Words
from .objective import declaration as declaration
from .objective import declare as declare
from .pairs.apo_down import apo_down as apo_down
from .pairs.dpo import dpo as dpo
from .pairs.ipo import ipo as ipo
from .pairs.ipo import ipo_length_normalized as ipo_length_normalized
from .pairs.nca import nca as nca
from .rewards import duals as duals
from .rewards.awr import awr as awr
from .rewards.crr import binary_crr as binary_crr
from .rewards.expectile import expectile_loss as expectile_loss
from .rewards.mpo import mpo as mpo
from .rewards.td3_bc import td3_bc as td3_bc

OBJECTIVES = {
    loss.__name__: declaration(loss)
    for loss in (
        *(pmpo, bc, bc_accepts, binary_crr, awr, unlikelihood, mpo),
        *(dpo, ipo, ipo_length_normalized, nca, kto, bco, td3_bc),
        *(asymre, topr, npo, weighted_reinforce, apo_zero_unpaired, sppo_unpaired, aot_unpaired, apo_down),
        *(conditional, sspo, d2o, dro, rpo),
    )
}
"""Every objective by name."""
