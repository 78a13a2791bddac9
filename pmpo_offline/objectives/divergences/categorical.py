"""Divergences of categorical distributions, from their normalised log-probabilities."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..rows import Setting, full_precision, present
from .order import Exponents, exponents, log_moment, moment_less_one, quotient


def categorical_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return KL(p || q) = sum_k p_k (log p_k - log q_k) of normalised log-probabilities `(..., K)` as `(...)`.

    Outcomes with p_k = 0 (`log_p` = -inf) count zero, as p log p does in the limit; it is +inf where q_k = 0 < p_k.
    """
    log_p, log_q = full_precision(log_p), full_precision(log_q)
    p = log_p.exp()
    return (p * present(log_p - log_q, p)).sum(-1)


def categorical_alpha(log_p: Tensor, log_q: Tensor, order: Setting) -> Tensor:
    """Return the alpha-divergence (1 - sum_k p_k^a q_k^(1-a)) / (a (1 - a)) as `(...)`.

    It is at most 1 / (a (1 - a)), which distributions without a common outcome reach.

    Args:
        log_p: `(..., K)`, normalised log-probabilities; -inf for an outcome that cannot happen.
        log_q: `(..., K)`, the same of q.
        order: a in [0, 1]: 1 is `categorical_kl(log_p, log_q)`, 0 is `categorical_kl(log_q, log_p)`, 1/2 is four times
            the squared Hellinger distance 1 - sum sqrt(p q). A number or `(*runs, 1)`.

    Raises:
        ValueError: an order outside [0, 1] or of another shape.
    """
    log_base, ratio, tilt, exponent = _around_the_nearer(log_p, log_q, order)
    divisor = exponent.p * exponent.q
    return quotient(-moment_less_one(log_base, tilt), divisor, _limit(log_base, ratio, divisor == 0))


def categorical_renyi(log_p: Tensor, log_q: Tensor, order: Setting) -> Tensor:
    """Return the Renyi divergence -log(sum_k p_k^a q_k^(1-a)) / (1 - a) as `(...)`.

    It is +inf, without a gradient, for distributions without a common outcome.

    Args:
        log_p: `(..., K)`, normalised log-probabilities; -inf for an outcome that cannot happen.
        log_q: `(..., K)`, the same of q.
        order: a in [0, 1]: 1 is `categorical_kl(log_p, log_q)`, 0 is -log q(p > 0), which is 0 where p leaves nothing
            out. A number or `(*runs, 1)`.

    Raises:
        ValueError: an order outside [0, 1] or of another shape.
    """
    log_base, ratio, tilt, exponent = _around_the_nearer(log_p, log_q, order)
    return quotient(-log_moment(log_base, tilt), exponent.q, _limit(log_base, ratio, exponent.q == 0))


def _around_the_nearer(log_p: Tensor, log_q: Tensor, order: Setting) -> tuple[Tensor, Tensor, Tensor, Exponents]:
    """Return log(base), log(other / base) and tau log(other / base), `(..., K)` (see `order`), and the exponents."""
    log_p, log_q = full_precision(log_p), full_precision(log_q)
    exponent = exponents(order, log_p)
    around_p, tau = exponent.around_p.unsqueeze(-1), exponent.smaller.unsqueeze(-1)

    log_base, log_other = torch.where(around_p, log_p, log_q), torch.where(around_p, log_q, log_p)
    ratio = torch.where(log_base == -math.inf, 0, log_other - log_base)
    absent = ratio == -math.inf  # an outcome that the other lacks counts as lacking for tau = 0 too: 0 * -inf is NaN
    return log_base, ratio, torch.where(absent, ratio, tau * torch.where(absent, 0, ratio)), exponent


def _limit(log_base: Tensor, ratio: Tensor, at_end: Tensor) -> Tensor:
    """Return KL(base || other) at an end, zero elsewhere: zero times the gradient of an unused infinity is NaN."""
    base = log_base.exp()
    return -(base * present(present(ratio, at_end.unsqueeze(-1)), base)).sum(-1)
