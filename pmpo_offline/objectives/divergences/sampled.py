"""Divergences estimated from samples of p, where there is no closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from ..rows import Setting, full_precision, mean, present, row_weight
from .order import cap, expm1, exponents, log_moment, quotient


def sampled_kl(logp_p: Tensor, logp_q: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the unbiased estimate E_p[log p - log q] of KL(p || q) from samples of p, `(*runs, B)` to `(*runs,)`.

    Forward: p is the reference or the behaviour that made the data, and the gradient is -E_ref[grad log pi], cloning.
    Where the density of p is not known, zeros for `logp_p` shift the value by p's entropy and leave that gradient. The
    reverse divergence needs samples of the policy, and its gradient does not flow through this estimate alone; or
    weigh samples of the reference: `sampled_alpha` of order 0.

    Args:
        logp_p: `(*runs, B)`, log-probabilities under p of B samples drawn from p.
        logp_q: `(*runs, B)`, log-probabilities of the same samples under q.
        weight: `(*runs, B)`, at least 0: the average is weighted.
    """
    difference = full_precision(logp_p) - full_precision(logp_q)
    return mean(difference, row_weight(difference, weight))


def sampled_alpha(logp_p: Tensor, logp_q: Tensor, order: Setting, weight: Tensor | None = None) -> Tensor:
    """Return an unbiased, never negative estimate of the alpha-divergence from samples of p, as `(*runs,)`.

    The alpha-divergence is an f-divergence: with u = log q - log p, it is E_p[f(u)], where ::

        f(u) = (expm1(u) - expm1((1 - a) u) / (1 - a)) / a            a = 1: e^u - 1 - u      a = 0: u e^u - (e^u - 1)

    The term expm1(u) has mean zero under p and makes every row count zero or more (at a = 1 it is the control variate
    of Schulman's *Approximating KL divergence*, 2020). The gradient with respect to q is unbiased as well, for every
    order: p may be the reference, q the policy, samples of which are not needed. But where q puts mass far from p the
    weights e^u are few and large. They are cut where they would overflow, with a gradient of zero: nothing can be
    estimated there.

    Args:
        logp_p: `(*runs, B)`, log-probabilities under p of B samples drawn from p.
        logp_q: `(*runs, B)`, log-probabilities of the same samples under q.
        order: a in [0, 1]: 1 estimates KL(p || q), 0 KL(q || p). A number or `(*runs, 1)`.
        weight: `(*runs, B)`, at least 0: the average is weighted.

    Raises:
        ValueError: an order outside [0, 1] or of another shape.
    """
    u, weight = _log_ratio(logp_p, logp_q, weight)
    u = u.clamp(max=cap(u))
    a, rest = exponents(order, u)
    # The same function twice, in the form that is exact near its own end (see `order`).
    around_p = (expm1(u) - quotient(expm1(rest * present(u, rest)), rest, u)) / a.clamp(min=0.5)
    least = u.clamp(min=-2000)  # e^(u/2) is zero from there on, and zero times it is no infinity times zero
    around_q = (torch.exp(rest * least) * quotient(expm1(a * least), a, least) - expm1(u)) / rest.clamp(min=0.5)
    return mean(torch.where(a >= rest, around_p, around_q), weight)


def sampled_renyi(logp_p: Tensor, logp_q: Tensor, order: Setting, weight: Tensor | None = None) -> Tensor:
    """Return an estimate of the Renyi divergence -log(E_p[(q/p)^(1-a)]) / (1 - a) from samples of p, as `(*runs,)`.

    The logarithm of an average is biased, by about the variance of (q/p)^(1-a) over 2 B (1 - a), and may be negative
    for few samples. At a = 1 it is `sampled_kl`; at a = 0 it estimates zero, wherever p covers q.

    Args:
        logp_p: `(*runs, B)`, log-probabilities under p of B samples drawn from p.
        logp_q: `(*runs, B)`, log-probabilities of the same samples under q.
        order: a in [0, 1]. A number or `(*runs, 1)`.
        weight: `(*runs, B)`, at least 0: the average is weighted.

    Raises:
        ValueError: an order outside [0, 1] or of another shape.
    """
    u, weight = _log_ratio(logp_p, logp_q, weight)
    _, rest = exponents(order, u)
    total = weight.sum(-1, keepdim=True)
    share = weight / torch.where(total > 0, total, 1)
    limit = -mean(present(u, rest == 0), weight)
    return quotient(-log_moment(share.log(), rest * present(u, rest)), rest.squeeze(-1), limit)


def _log_ratio(logp_p: Tensor, logp_q: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return log q - log p, zero on the rows of weight zero, and the weights."""
    ratio = full_precision(logp_q) - full_precision(logp_p)
    weight = row_weight(ratio, weight)
    return present(ratio, weight), weight
