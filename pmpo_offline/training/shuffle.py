"""The control: labels that were permuted among the labelled units, so that nothing is left to learn from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pmpo_offline.data import Rows


def shuffled(rows: Rows, unit: str, seed: int) -> Rows:
    """Permute labels among the labelled units (steps or episodes; candidates among themselves)."""
    rng = np.random.default_rng([seed, 7])

    def permute(label: Tensor) -> Tensor:
        labelled = torch.nonzero(label).squeeze(1)
        result = label.clone()
        result[labelled] = label[labelled[torch.from_numpy(rng.permutation(len(labelled))).to(label.device)]]
        return result

    if unit == "episode":
        first = torch.ones_like(rows.episode, dtype=torch.bool)
        first[1:] = rows.episode[1:] != rows.episode[:-1]
        label = permute(rows.label[first])[rows.episode]
    else:
        label = permute(rows.label)
    candidates = rows.candidates
    if candidates is not None:
        shape = candidates.label.shape
        candidates = replace(candidates, label=permute(candidates.label.flatten()).view(shape))
    return replace(rows, label=label, candidates=candidates)
