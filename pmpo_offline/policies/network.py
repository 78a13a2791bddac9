"""Multilayer perceptrons with a leading run dimension: many seeds and settings trained as one batch of matrices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_NARROW = 64
"""Outputs below which the transposed product is faster."""


class StackedLinear(nn.Module):
    """R independent linear maps, applied by one batched product.

    Args:
        generators: one random generator a run, so that a run starts alike whether it is trained alone or in a stack.
        inputs: width of the input.
        outputs: width of the output.
        gain: scale of the initial weights relative to 1/sqrt(inputs).
    """

    def __init__(self, generators: Sequence[torch.Generator], inputs: int, outputs: int, gain: float = 1.0) -> None:
        super().__init__()
        bound = gain * (3.0 / inputs) ** 0.5
        weights = [(torch.rand(inputs, outputs, generator=g) * 2 - 1) * bound for g in generators]
        self.weight = nn.Parameter(torch.stack(weights))
        self.bias = nn.Parameter(torch.zeros(len(weights), 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (R, B, inputs) to (R, B, outputs)."""
        if self.weight.shape[-1] < _NARROW:
            return _Narrow.apply(x, self.weight, self.bias)  # type: ignore[no-any-return,no-untyped-call]
        return torch.baddbmm(self.bias, x, self.weight)


class _Narrow(torch.autograd.Function):
    """The same product and gradients, transposed where BLAS would write a few columns, for it is quicker at a few rows.

    Thirteen outputs of 256 units take half the time. Transposing the call alone would hand a transposed gradient on to
    the wide layers, which costs more than it saves.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        # A copy, which is small: a view could not be changed in place by the activation.
        return torch.baddbmm(bias.mT, weight.mT, x.mT).mT.clone(memory_format=torch.contiguous_format)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        into_x = torch.bmm(gradient, weight.mT) if ctx.needs_input_grad[0] else None
        return into_x, torch.bmm(gradient.mT, x).mT, gradient.sum(1, keepdim=True)


def stacked_mlp(seeds: Sequence[int], inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    """Build R perceptrons with ReLU layers, run r initialised from seeds[r]; (R, B, inputs) -> (R, B, outputs)."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    layers: list[nn.Module] = []
    width = inputs
    for size in hidden:
        layers += [StackedLinear(generators, width, size, gain=2**0.5), nn.ReLU(inplace=True)]
        width = size
    layers.append(StackedLinear(generators, width, outputs, gain=0.1))
    return nn.Sequential(*layers)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread inside the block: networks this small take longer on several, and their numbers differ.

    Several threads wait for one another on a busy machine.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
