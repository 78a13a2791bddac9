"""Orders between the two Kullback-Leibler divergences, computed exactly near the ends too.

Both families are differences of the moment from 1, divided by something that vanishes at an end. Taken literally,
`(1 - moment) / (a (1 - a))` multiplies the rounding of the moment by 1e5 at a = 1e-5. So it is never subtracted from 1:
with the smaller of the two exponents, tau = min(a, 1 - a), on the ratio of the two densities, it is ::

    moment - 1 = E_base[expm1(tau log(other / base))],    base = p for a >= 1/2, else q

whose every term is exact to the last digits and of the size of tau, so that dividing by tau loses nothing. At an end
itself the quotient is replaced by its limit. (Between unnormalised densities the two bases differ: only gradients that
keep p and q normalised mean anything.)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..rows import Setting, per_run

_END = 1e-12
"""An order this near to an end is taken for the end: the difference is rounding, and its gradient could overflow."""


class Exponents(NamedTuple):
    """The exponents of the two densities, each a scalar or `(*runs, 1)`."""

    p: Tensor
    """a, the order."""
    q: Tensor
    """1 - a."""

    @property
    def around_p(self) -> Tensor:
        """True where p has the larger exponent, so that the ratio q / p is raised to a small power."""
        return self.p >= self.q

    @property
    def smaller(self) -> Tensor:
        """tau, the exponent of the ratio."""
        return torch.minimum(self.p, self.q)


def exponents(order: Setting, like: Tensor) -> Exponents:
    """Return a and 1 - a in the precision of `like`.

    Raises:
        ValueError: a number outside [0, 1], or a tensor whose last dimension is not 1. (The values of a tensor are not
            looked at: that would make the host wait for the device.)
    """
    if isinstance(order, Tensor):
        both = per_run(order, like), per_run(1 - order, like)
    elif 0 <= order <= 1:
        both = like.new_full((), order), like.new_full((), 1 - order)
    else:
        raise ValueError(f"the order of a divergence lies in [0, 1], not {order}")
    return Exponents(*(torch.where(exponent < _END, 0, exponent) for exponent in both))


def quotient(numerator: Tensor, denominator: Tensor, limit: Tensor) -> Tensor:
    """Return `numerator / denominator`, and `limit` where the denominator is zero."""
    at_limit = denominator == 0
    return torch.where(at_limit, limit, numerator / torch.where(at_limit, 1, denominator))


def expm1(value: Tensor) -> Tensor:
    """Return e^value - 1, with a gradient that fades as e^value does; torch's own reads 1 + result, which rounds."""
    return torch.where(value < -1, value.clamp(max=0).exp() - 1, torch.expm1(value))


def cap(like: Tensor) -> float:
    """Return the largest exponent that is used: with room to divide its exponential by a small order, and to add up."""
    return math.log(torch.finfo(like.dtype).max) / 2


def moment_less_one(log_base: Tensor, tilt: Tensor) -> Tensor:
    """Return E_base[exp(tilt)] - 1 over the last dimension, exact for small tilts."""
    # The moment is at most 1, so base <= exp(-tilt): above the cap lies nothing that could be seen beside 1.
    return (log_base.exp() * expm1(tilt.clamp(max=cap(tilt)))).sum(-1)


def log_moment(log_base: Tensor, tilt: Tensor) -> Tensor:
    """Return log E_base[exp(tilt)] over the last dimension, exact for small tilts and for tiny moments."""
    difference = moment_less_one(log_base, tilt)
    near = difference.abs() < 0.5
    exponent = log_base + tilt
    highest = exponent.detach().amax(-1, keepdim=True)
    highest = torch.where(highest.isfinite(), highest, 0)
    total = (exponent - highest).exp().sum(-1)
    # Nothing in common: the moment is zero, its logarithm -inf, and no direction is better than another.
    far = torch.where(total > 0, torch.where(total > 0, total, 1).log() + highest.squeeze(-1), -math.inf)
    return torch.where(near, torch.log1p(torch.where(near, difference, 0)), far)
