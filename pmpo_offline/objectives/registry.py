"""Every objective by name."""

from __future__ import annotations

from .cloning import bc
from .labels.aot import aot_unpaired
from .labels.apo_zero import apo_zero_unpaired
from .labels.asymre import asymre
from .labels.bc_accepts import bc_accepts
from .labels.bco import bco
from .labels.conditional import conditional
from .labels.d2o import d2o
from .labels.dro import dro, rpo
from .labels.kto import kto
from .labels.npo import npo
from .labels.pmpo import pmpo
from .labels.sppo import sppo_unpaired
from .labels.sspo import sspo
from .labels.topr import topr
from .labels.unlikelihood import unlikelihood
from .labels.weighted_reinforce import weighted_reinforce
from .objective import declaration
from .pairs.apo_down import apo_down
from .pairs.dpo import dpo
from .pairs.ipo import ipo, ipo_length_normalized
from .pairs.nca import nca
from .rewards.awr import awr
from .rewards.crr import binary_crr
from .rewards.mpo import mpo
from .rewards.td3_bc import td3_bc

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
