"""Adam for stacked runs: each may have a learning rate of its own, which torch's optimizers cannot give it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

_DECAY, _DECAY_SQUARE, _TINY = 0.9, 0.999, 1e-8  # the authors' own


class StackedAdam:
    """Kingma and Ba, *Adam*, arXiv 1412.6980, Algorithm 1, run by run.

    Args:
        weights: (R, …) each, changed in place.
        learning_rate: a number, or (R, 1) with one for each run.
    """

    def __init__(self, weights: Iterable[Tensor], learning_rate: float | Tensor) -> None:
        self._weights = list(weights)
        first = self._weights[0]
        rate = torch.as_tensor(learning_rate, dtype=first.dtype, device=first.device).expand(len(first), 1)
        self._rate = [rate.reshape(-1, *[1] * (weight.dim() - 1)) for weight in self._weights]
        self._average = [torch.zeros_like(weight) for weight in self._weights]
        self._square = [torch.zeros_like(weight) for weight in self._weights]
        self._step = 0

    @torch.no_grad()
    def step(self) -> None:
        """Move the weights against their gradients and forget the gradients."""
        gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in self._weights]
        self._step += 1
        torch._foreach_lerp_(self._average, gradients, 1 - _DECAY)
        torch._foreach_mul_(self._square, _DECAY_SQUARE)
        torch._foreach_addcmul_(self._square, gradients, gradients, 1 - _DECAY_SQUARE)
        deviation = torch._foreach_sqrt(self._square)
        torch._foreach_div_(deviation, (1 - _DECAY_SQUARE**self._step) ** 0.5)
        torch._foreach_add_(deviation, _TINY)
        moves = torch._foreach_mul(self._average, self._rate)
        torch._foreach_addcdiv_(self._weights, moves, deviation, -1 / (1 - _DECAY**self._step))
        for weight in self._weights:
            weight.grad = None

    def state(self) -> dict[str, Tensor]:
        """Return what it remembers of the gradients, for a checkpoint; the weights are their owner's."""
        moments = {"average": self._average, "square": self._square}
        named = {f"{name}.{i}": each for name, values in moments.items() for i, each in enumerate(values)}
        return named | {"step": torch.tensor(self._step)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` returned."""
        for name, values in (("average", self._average), ("square", self._square)):
            for i, each in enumerate(values):
                each.copy_(state[f"{name}.{i}"])
        self._step = int(state["step"])
