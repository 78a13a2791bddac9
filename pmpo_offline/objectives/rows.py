"""Operations on rows that objectives share: split by label, average, scale the averages run by run.

Shapes are `(*runs, B)`: any number of leading dimensions of stacked runs, then the rows of a batch. A row of weight
zero is *selected away*, never multiplied away: `0 * -inf` is NaN, in the value and in the gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

Setting = float | Tensor
"""A hyperparameter: one number for all runs, or a tensor `(*runs, 1)` with one for each."""


def full_precision(value: Tensor) -> Tensor:
    """Return the tensor in float32 or wider; sums of bfloat16 log-probabilities err by whole nats."""
    return value.to(torch.promote_types(value.dtype, torch.float32))


def row_weight(like: Tensor, weight: Tensor | None) -> Tensor:
    """Return the weight of each row, one where none is given."""
    return torch.ones_like(like) if weight is None else weight.to(like.dtype)


def classes(label: Tensor, like: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the weights of the accepted and of the rejected rows, each zero on every other row.

    `label` is +1 (accept), -1 (reject) or 0 (unlabelled), or a bool tensor (accept or reject).
    """
    rows = row_weight(like, weight)
    accepted, rejected = (label, ~label) if label.dtype == torch.bool else (label > 0, label < 0)
    return torch.where(accepted, rows, 0), torch.where(rejected, rows, 0)


def present(value: Tensor, weight: Tensor) -> Tensor:
    """Return `value`, with zero on the rows of weight zero, whatever they hold."""
    return torch.where(weight != 0, value, 0)


def log_ratio(logp: Tensor, ref_logp: Tensor, weight: Tensor) -> Tensor:
    """Return r = log pi - log pi_ref `(*runs, B)`, zero on the rows of weight zero, whatever they hold.

    No gradient flows to the reference, which is frozen, even where its caller forgot to say so.
    """
    return present(logp - ref_logp.detach(), weight)


def squared(error: Tensor) -> Tensor:
    """Return the squares; an infinite error costs infinity and has no gradient, which would be NaN times a weight of 0.

    So a row of log-probability -inf leaves the gradients of all other rows as they are.
    """
    return torch.where(error.isfinite(), error, error.detach()).square()


def mean(value: Tensor, weight: Tensor, over: Tensor | None = None) -> Tensor:
    """Return `sum(weight * value) / sum(over)` over the last dimension; zero where there is nothing to average.

    `over` (default: `weight`) holds the weights of the rows that are counted. Some may be negative (`noise`); where
    their sum is not positive there is nothing either.
    """
    count = (weight if over is None else over).sum(-1)
    total = (weight * present(value, weight)).sum(-1) / torch.where(count > 0, count, 1)
    return torch.where(count > 0, total, 0)


def per_run(setting: Setting, like: Tensor) -> Tensor:
    """Return a hyperparameter as a tensor that broadcasts over rows; ValueError for a shape that would mix up runs."""
    if not isinstance(setting, Tensor):
        return like.new_full((1,), setting)  # a fill on the device, not a copy from the host
    if setting.dim() and setting.shape[-1] != 1:
        raise ValueError(
            f"a hyperparameter is a number or of shape (*runs, 1), not {tuple(setting.shape)}: unsqueeze(-1) it"
        )
    return setting.to(like)


def scale(setting: Setting, value: Tensor) -> Tensor:
    """Return `setting * value`, `(*runs,)`; a coefficient of zero switches the term off even where it is infinite."""
    coefficient = per_run(setting, value)
    return present(coefficient * value.unsqueeze(-1), coefficient).squeeze(-1)


def reduced(kl: Tensor, like: Tensor) -> Tensor:
    """Return the divergence `(*runs,)` in full precision; ValueError where it still has a dimension of rows."""
    if kl.dim() >= like.dim():
        raise ValueError(f"kl is one divergence a run, (*runs,), not {tuple(kl.shape)}: average it over the rows first")
    return full_precision(kl)


def detached(loss: Tensor, **metrics: Tensor) -> dict[str, Tensor]:
    """Return the metrics without their graph, each in the shape of the loss."""
    return {name: value.detach().expand_as(loss) for name, value in metrics.items()}
