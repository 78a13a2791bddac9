"""Bare matrix products: the machine's peak, and the products that an update of the trainer is made of."""

from __future__ import annotations

from itertools import pairwise

import rows
import torch
from timing import BATCH, HIDDEN, Contender, timed
from torch import Tensor


def square(n: int, device: torch.device) -> Contender:
    """One large product of (n, n) matrices: what the machine can do."""
    return _product(
        f"({n} × {n}) · ({n} × {n})", torch.randn(1, n, n, device=device), torch.randn(1, n, n, device=device)
    )


def products(runs: int, device: torch.device) -> list[Contender]:
    """The eight batched products of one update, laid out as the trainer calls them: they alone bound what it can do."""
    widths = [rows.OBSERVATION, *HIDDEN, 2 * rows.ACTION + 1]
    found = []
    for layer, (m, n) in enumerate(pairwise(widths)):
        x, weight, gradient = (torch.randn(runs, *shape, device=device) for shape in ((BATCH, m), (m, n), (BATCH, n)))
        narrow = n < 64  # as policies.network: a few rows are quicker than a few columns
        forward = (weight.mT, x.mT) if narrow else (x, weight)
        into_weight = (gradient.mT, x) if narrow else (x.mT, gradient)
        named = {"forward": forward, "gradient of the weights": into_weight}
        if layer:
            named["gradient of the inputs"] = (gradient, weight.mT)
        found += [_product(f"{runs} runs, layer {layer + 1}, {name}", *pair) for name, pair in named.items()]
    return found


def _product(name: str, a: Tensor, b: Tensor) -> Contender:
    out = torch.empty(len(a), a.shape[1], b.shape[2], device=a.device)

    def loop(count: int) -> None:
        for _ in range(count):
            torch.bmm(a, b, out=out)

    each = 2.0 * a.shape[1] * a.shape[2] * b.shape[2]
    return Contender(name, len(a), each, lambda n: timed(lambda: loop(n), a.device))
