"""Timing of updates of runs, in seconds of the clock and of the processor."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

BATCH, HIDDEN = 256, (256, 256)


@dataclass(frozen=True)
class Timing:
    """Seconds of a slot."""

    wall: float
    cpu: float
    """Of the process that did the work; on a GPU the host's alone."""


@dataclass(frozen=True)
class Contender:
    """One implementation of an update."""

    name: str
    runs: int
    flops: float
    """Of one update of one run."""
    update: Callable[[int], Timing]


def flops(widths: Sequence[int]) -> float:
    """FLOPs of the matrix products of one update of one perceptron: 2 a multiply-add, B rows, layers of m to n units.

    Forward sum(2 B m n), the gradients of the weights as much again, and those of the inputs too, but for the first
    layer's. Whatever is done elementwise (activations, head, loss, clipping, optimizer, average) counts for nothing.
    """
    layers = [2.0 * BATCH * m * n for m, n in pairwise(widths)]
    return 3 * sum(layers) - layers[0]


def timed(work: Callable[[], Any], device: torch.device) -> Timing:
    """Return the seconds that `work` takes, with everything that it put on the device done."""
    finish(device)
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    finish(device)
    return Timing(time.perf_counter() - wall, time.process_time() - cpu)


def finish(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
