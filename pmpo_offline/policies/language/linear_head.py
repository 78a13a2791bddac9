"""Log-probabilities and divergences of a frozen linear head in closed form, a part of the vocabulary at a time.

With logits W s + b of a state s and p their softmax, the log-probability of the word y is concave in s, and

    slope = d log p(y) / ds = W_y - sum_v p_v W_v
    KL(p || q) = log p(y) - log q(y) - slope · (s_p - s_q),        q the distribution of another state, any y

(the divergence of an exponential family is the gap between its log-partition and the tangent). Both sums over words are
computed as in flash attention: each part of the words is read once, and the partial sums are rescaled to the largest
logit so far. That saves the softmax, its derivative and every tensor of width V.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

CHUNK = 32
"""The size of the working set, as logits of this many tokens: 6 MB (49,152 words) fit a CPU's cache."""


def is_closed(head: nn.Module, states: Tensor) -> TypeGuard[nn.Linear]:
    """Return whether the closed form applies: a plain linear head that is not trained, on a CPU, in full precision.

    The divergence is a small difference of large numbers, of which 16 bits would leave nothing.
    """
    return (
        type(head) is nn.Linear
        and states.device.type == "cpu"
        and states.dtype == head.weight.dtype
        and states.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and not any(weight.requires_grad for weight in head.parameters())
    )


def logp_and_slope(head: nn.Linear, states: Tensor, target: Tensor, chunk: int | None = None) -> tuple[Tensor, Tensor]:
    """Return tokens' log-probabilities, (N,), nats, differentiable in `states`, and their slopes, (N, H), constants.

    Args:
        head: see `is_closed`.
        states: (N, H).
        target: (N,), the tokens.
        chunk: size of the working set, as in `CHUNK`.
    """
    logp, slope = _Closed.apply(states, target, head, chunk)  # type: ignore[no-untyped-call]
    return logp, slope


def logp_alone(head: nn.Linear, states: Tensor, target: Tensor, chunk: int | None = None) -> Tensor:
    """Return the first of `logp_and_slope` for half the work, without a gradient."""
    return _closed(states.detach(), target, head, chunk, slope=False)[0]


def kl(logp: Tensor, slope: Tensor, states: Tensor, other_logp: Tensor, other_states: Tensor) -> Tensor:
    """Return KL(distribution || other) of tokens, nats: (N,).

    `logp` and `slope` belong to the distribution of `states`, `other_logp` to that of `other_states`, for the same
    tokens.
    """
    return logp - other_logp - (slope * (states - other_states)).sum(-1)


class _Closed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, target: Tensor, head: nn.Linear, chunk: int | None) -> tuple[Tensor, Tensor]:
        logp, slope = _closed(states, target, head, chunk)
        ctx.save_for_backward(slope)
        ctx.mark_non_differentiable(slope)
        return logp, slope

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        (slope,) = ctx.saved_tensors
        return upstream[0].unsqueeze(-1) * slope, None, None, None


@torch.no_grad()
def _closed(
    states: Tensor, target: Tensor, head: nn.Linear, chunk: int | None, *, slope: bool = True
) -> tuple[Tensor, Tensor]:
    tokens, width = states.shape
    words = max(1, (chunk or CHUNK) * len(head.weight) // max(1, tokens))
    largest = states.new_full((tokens, 1), -torch.inf)
    total, mean = states.new_zeros(tokens, 1), states.new_zeros(tokens, width)
    for first in range(0, len(head.weight), words):
        part = head.weight[first : first + words]
        logits = nn.functional.linear(states, part, None if head.bias is None else head.bias[first : first + words])
        before, largest = largest, torch.maximum(largest, logits.amax(-1, keepdim=True))
        fade = (before - largest).exp_()
        weight = logits.sub_(largest).exp_()
        total.mul_(fade).add_(weight.sum(-1, keepdim=True))
        if slope:
            mean.mul_(fade).addmm_(weight, part)
    own = head.weight[target]
    logit = (states * own).sum(-1) + (0 if head.bias is None else head.bias[target])
    return logit - (largest + total.log()).squeeze(-1), own - mean / total
