"""Objectives: pure loss functions of tensors, the same for bandits, control and language models.

They are in folders by the feedback that they learn from: `labels`, `pairs`, `rewards`; `bc` needs none.

>>> import torch
>>> from pmpo_offline.objectives import pmpo
>>> logp, label = torch.tensor([-1.0, -2.0, -4.0]), torch.tensor([1.0, 1.0, -1.0])
>>> loss, metrics = pmpo(logp, label, kl=torch.tensor(0.5), alpha=0.5, beta=1.0, normalize="joint")
>>> loss  # -0.5 * (-1 - 2) / 3 + 0.5 * (-4) / 3 + 1.0 * 0.5
tensor(0.3333)
"""

import lazy_loader

# Names are imported on first use, as `__init__.pyi` lists them: the bounds of `stability` need no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

NAMES = (
    *("pmpo", "bc", "bc_accepts", "binary_crr", "awr", "unlikelihood", "mpo"),
    *("dpo", "ipo", "ipo_length_normalized", "nca", "kto", "bco", "td3_bc"),
    *("asymre", "topr", "npo", "weighted_reinforce", "apo_zero_unpaired", "sppo_unpaired", "aot_unpaired", "apo_down"),
    *("conditional", "sspo", "d2o", "dro", "rpo"),
)
"""Loss functions of this package that are objectives, in the order in which they are listed."""
