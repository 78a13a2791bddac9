"""How texts are scored in bulk: no gradients, no dropout, and rows of like length together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from pmpo_offline.policies.language.tokens import Tokens


@contextmanager
def measuring(*models: nn.Module) -> Iterator[None]:
    """Switch dropout and gradients off, and leave the models in the mode that they were in."""
    modes = [(model, model.training) for model in models]
    for model in models:
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for model, mode in modes:
            model.train(mode)


def batches_by_length(rows: Sequence[Tokens], batch: int) -> list[list[int]]:
    """Return the indices of the rows in batches of like length, the longest first: memory runs out early or never."""
    order = sorted(range(len(rows)), key=lambda i: -(len(rows[i].prompt) + len(rows[i].completion)))
    return [order[start : start + batch] for start in range(0, len(order), batch)]
