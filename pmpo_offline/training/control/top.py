"""The best episodes by what they really earned."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pmpo_offline.data import Dataset, columns
from pmpo_offline.runtime.errors import UserError


def top_rows(dataset: Dataset, share: float) -> Tensor:
    """Return the rows, ascending int64, of the share of the episodes that have the highest returns, at least of one.

    Episodes are cut where they ended, as stored, and a share that is no whole number of them is rounded down; of equal
    returns the earlier episode goes first. This is "10 % BC" at 0.1 (Chen et al., *Decision Transformer*,
    arXiv 2106.01345, section 5.1).
    """
    if dataset.episodes is None:
        raise UserError(f"dataset {dataset.metadata.id} holds responses, not episodes with returns")
    returns, start, length = (columns.vector(dataset.episodes, name) for name in ("return", "start", "length"))
    count = max(1, math.floor(share * len(returns) + 1e-9))  # 0.1 of 30 is 3, whatever binary fractions say
    best = np.sort(np.argsort(-returns, kind="stable")[:count])
    return torch.from_numpy(np.concatenate([np.arange(start[e], start[e] + length[e]) for e in best]).astype(np.int64))
