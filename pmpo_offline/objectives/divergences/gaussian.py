"""Divergences of diagonal Gaussians in closed form, from means and log-deviations `(..., D)`.

All are functions of two numbers a dimension: how many deviations the means lie apart, and d = log(std_p / std_q).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ..rows import Setting, full_precision, present
from .order import Exponents, expm1, exponents, quotient


def gaussian_kl(mean_p: Tensor, log_std_p: Tensor, mean_q: Tensor, log_std_q: Tensor) -> Tensor:
    """Return KL(p || q) of diagonal Gaussians over `(..., D)`, summed over the D dimensions, as `(...)`.

    With d = log(std_p / std_q) and z = (mean_p - mean_q) / std_q, each dimension adds (z^2 + e^2d - 1 - 2d) / 2.
    """
    mean_p, log_std_p = full_precision(mean_p), full_precision(log_std_p)
    return _kl((mean_p - mean_q) * torch.exp(-log_std_q), log_std_p - log_std_q)


def gaussian_kl_decoupled(
    mean_p: Tensor, log_std_p: Tensor, mean_q: Tensor, log_std_q: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what q's mean alone and what q's deviation alone would add to KL(p || q), each `(...)`.

    MPO bounds the two apart, so that the mean may move fast while the deviation shrinks slowly. Each part takes the
    other moment from p, the reference (Abdolmaleki et al., arXiv 1812.02256, in the form that acme's MPO gives them;
    V-MPO, arXiv 1909.12238, bounds the same parts)::

        mean part       KL(p || N(mean_q, std_p))  =  z^2 / 2                       z = (mean_p - mean_q) / std_p
        deviation part  KL(p || N(mean_p, std_q))  =  (e^2d - 1 - 2d) / 2           d = log(std_p / std_q)

    They sum to KL(p || q) only where the deviations are equal.
    """
    mean_p, log_std_p = full_precision(mean_p), full_precision(log_std_p)
    d = log_std_p - log_std_q
    z = (mean_p - mean_q) * torch.exp(-log_std_p)
    return _kl(z, torch.zeros_like(d)), _kl(torch.zeros_like(z), d)


def gaussian_alpha(mean_p: Tensor, log_std_p: Tensor, mean_q: Tensor, log_std_q: Tensor, order: Setting) -> Tensor:
    """Return the alpha-divergence (1 - integral p^a q^(1-a)) / (a (1 - a)) of diagonal Gaussians as `(...)`.

    It does not add up over dimensions, and is at most 1 / (a (1 - a)): far apart its gradient vanishes.

    Args:
        mean_p: `(..., D)`.
        log_std_p: `(..., D)`, logarithms of the deviations.
        mean_q: `(..., D)`.
        log_std_q: `(..., D)`.
        order: a in [0, 1]: 1 is KL(p || q), 0 is KL(q || p). A number or `(*runs, 1)`.

    Raises:
        ValueError: an order outside [0, 1] or of another shape.
    """
    gap, exponent = _around_the_nearer(mean_p, log_std_p, mean_q, log_std_q, order)
    divisor = exponent.p * exponent.q
    return quotient(-expm1(_log_moment(gap, exponent)), divisor, _limit(gap, divisor == 0))


def gaussian_renyi(mean_p: Tensor, log_std_p: Tensor, mean_q: Tensor, log_std_q: Tensor, order: Setting) -> Tensor:
    """Return the Renyi divergence -log(integral p^a q^(1-a)) / (1 - a) of diagonal Gaussians as `(...)`.

    It adds up over dimensions, as KL does; each adds, with s^2 = a std_q^2 + (1 - a) std_p^2 (Gil, Alajaji and Linder,
    *Renyi divergence measures for commonly used univariate continuous distributions*, 2013)::

        a (mean_p - mean_q)^2 / (2 s^2)  +  log(s^2 / (std_p^(2 (1 - a)) std_q^(2 a))) / (2 (1 - a))

    Args:
        mean_p: `(..., D)`.
        log_std_p: `(..., D)`, logarithms of the deviations.
        mean_q: `(..., D)`.
        log_std_q: `(..., D)`.
        order: a in [0, 1]: 1 is KL(p || q), at 0 it is zero. A number or `(*runs, 1)`.

    Raises:
        ValueError: an order outside [0, 1] or of another shape.
    """
    gap, exponent = _around_the_nearer(mean_p, log_std_p, mean_q, log_std_q, order)
    return quotient(-_log_moment(gap, exponent), exponent.q, _limit(gap, exponent.q == 0))


def _kl(z: Tensor, d: Tensor) -> Tensor:
    return ((z.square() + torch.expm1(2 * d) - 2 * d) / 2).sum(-1)


class _Gap(NamedTuple):
    """Differences between two Gaussians, `(..., D)`, from the one that has the larger exponent (see `order`)."""

    mean: Tensor
    """Difference of the means."""
    log_std: Tensor
    """d = log(std_base / std_other)."""
    log_std_other: Tensor


def _around_the_nearer(
    mean_p: Tensor, log_std_p: Tensor, mean_q: Tensor, log_std_q: Tensor, order: Setting
) -> tuple[_Gap, Exponents]:
    mean_p, log_std_p = full_precision(mean_p), full_precision(log_std_p)
    exponent = exponents(order, mean_p)
    around_p, d = exponent.around_p.unsqueeze(-1), log_std_p - log_std_q
    return _Gap(mean_p - mean_q, torch.where(around_p, d, -d), torch.where(around_p, log_std_q, log_std_p)), exponent


def _log_moment(gap: _Gap, exponent: Exponents) -> Tensor:
    """Return log(integral base^(1-tau) other^tau).

    With s^2 = (1 - tau) std_other^2 + tau std_base^2, each dimension adds ::

        tau d - log(s^2 / std_other^2) / 2 - tau (1 - tau) (mean_p - mean_q)^2 / (2 s^2)
    """
    tau = exponent.smaller.unsqueeze(-1)
    log_ratio = _log_average_variance(gap.log_std, tau)
    z = gap.mean * torch.exp(-gap.log_std_other - log_ratio / 2)
    return (tau * gap.log_std - log_ratio / 2 - tau * (1 - tau) * present(z, tau).square() / 2).sum(-1)


def _limit(gap: _Gap, at_end: Tensor) -> Tensor:
    """Return KL(base || other) at an end, zero elsewhere: zero times the gradient of an unused infinity is NaN."""
    mean, log_std, log_std_other = (present(difference, at_end.unsqueeze(-1)) for difference in gap)
    return _kl(mean * torch.exp(-log_std_other), log_std)


def _log_average_variance(d: Tensor, tau: Tensor) -> Tensor:
    """Return log(1 - tau + tau e^2d), exact for a small tau or d, and without overflow."""
    large = 2 * d > 30  # here 1 is nothing beside e^2d, and the second form loses no digits to it
    small = torch.log1p(tau * torch.expm1(torch.where(large, 0, 2 * d)))
    odds = torch.where(tau > 0, tau, 1).log() - torch.log1p(-tau)
    beyond = torch.log1p(-tau) + softplus(torch.where(large, 2 * d, 0) + odds)
    return torch.where(large & (tau > 0), beyond, small)
