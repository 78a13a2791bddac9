"""Adam with moments from the start, of one learning rate or one a run, and its one-cycle schedule.

`torch.optim.Optimizer` imports PyTorch's compiler on its first use: seconds of every process that trains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from pmpo_offline.training.checkpoint import keep_state

BETA = 0.9
_BETA_SQUARE = 0.999
_START, _END, _RISE = 25, 1e4, 0.3
_CYCLE_BETAS = 0.95, 0.85


class Adam:
    """PyTorch's Adam, or AdamW where there is weight decay: Loshchilov and Hutter, arXiv 1711.05101.

    Args:
        weights: changed in place.
        rate: the learning rate.
        decay: of the weights, decoupled.
        eps: added to the root of the second moment.
        fused: use the kernel of a single pass; without it, bits are those of `torch.optim.AdamW` by default on a CPU.
    """

    def __init__(
        self, weights: Iterable[Tensor], rate: float, *, decay: float = 0.0, eps: float = 1e-8, fused: bool = True
    ) -> None:
        self.weights = list(weights)
        self.rate, self.beta = rate, BETA
        self._decay, self._eps, self._fused = decay, eps, fused
        self._steps = [torch.zeros((), device=weight.device) for weight in self.weights]
        self._means = [torch.zeros_like(weight) for weight in self.weights]
        self._squares = [torch.zeros_like(weight) for weight in self.weights]
        moments = zip(self._steps, self._means, self._squares, strict=True)
        self.moments = [moment for of_weight in moments for moment in of_weight]
        """Steps, first and second moment of each weight; writing into these restores the optimizer."""

    def minimise(self, losses: Tensor, clip: Callable[[list[Tensor]], object] | None = None) -> None:
        """Move the weights against the gradient of the sum of the losses.

        Args:
            losses: of any shape; every weight has a gradient.
            clip: changes the gradients of the weights before these move.
        """
        for weight in self.weights:
            weight.grad = None
        losses.sum().backward()  # type: ignore[no-untyped-call]
        if clip is not None:
            clip(self.weights)
        self._step()

    @torch.no_grad()
    def _step(self) -> None:
        adamw(
            self.weights,
            [weight.grad for weight in self.weights if weight.grad is not None],
            self._means,
            self._squares,
            max_exp_avg_sqs=[],
            state_steps=self._steps,
            foreach=False,
            fused=self._fused,
            amsgrad=False,
            maximize=False,
            beta1=self.beta,
            beta2=_BETA_SQUARE,
            lr=self.rate,
            weight_decay=self._decay,
            eps=self._eps,
        )


class StackedAdam(nn.Module):
    """Kingma and Ba, *Adam*, arXiv 1412.6980, Algorithm 1, run by run, each with a learning rate of its own.

    Args:
        weights: (R, …) each, changed in place.
        learning_rate: a number, or (R, 1) with one for each run.
    """

    def __init__(self, weights: Iterable[Tensor], learning_rate: float | Tensor) -> None:
        super().__init__()
        self._weights = list(weights)
        first = self._weights[0]
        rate = torch.as_tensor(learning_rate, dtype=first.dtype, device=first.device).expand(len(first), 1)
        self._rate = [rate.reshape(-1, *[1] * (weight.dim() - 1)) for weight in self._weights]
        self._average = [torch.zeros_like(weight) for weight in self._weights]
        self._square = [torch.zeros_like(weight) for weight in self._weights]
        self.steps = torch.tensor(0)
        keep_state(self, steps=self.steps, average=self._average, square=self._square)

    @torch.no_grad()
    def step(self) -> None:
        """Move the weights against their gradients and forget the gradients."""
        gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in self._weights]
        self.steps += 1
        step = int(self.steps)
        torch._foreach_lerp_(self._average, gradients, 1 - BETA)
        torch._foreach_mul_(self._square, _BETA_SQUARE)
        torch._foreach_addcmul_(self._square, gradients, gradients, 1 - _BETA_SQUARE)
        deviation = torch._foreach_sqrt(self._square)
        torch._foreach_div_(deviation, (1 - _BETA_SQUARE**step) ** 0.5)
        torch._foreach_add_(deviation, 1e-8)
        moves = torch._foreach_mul(self._average, self._rate)
        torch._foreach_addcdiv_(self._weights, moves, deviation, -1 / (1 - BETA**step))
        for weight in self._weights:
            weight.grad = None


def one_cycle(update: int, updates: int, peak: float) -> tuple[float, float]:
    """Return the learning rate and Adam's first β of an update, as `torch.optim.lr_scheduler.OneCycleLR` sets them.

    Half a cosine up to the peak over the first 30 %, then one down to almost zero; β moves the other way.
    Smith and Topin, *Super-Convergence*, arXiv 1708.07120.
    """
    turn, (high, low) = _RISE * updates - 1, _CYCLE_BETAS
    if update <= turn:
        share = update / turn
        return _cosine(peak / _START, peak, share), _cosine(high, low, share)
    share = (update - turn) / (updates - 1 - turn)
    return _cosine(peak, peak / _START / _END, share), _cosine(low, high, share)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1)
