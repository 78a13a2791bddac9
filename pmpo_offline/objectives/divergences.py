"""Kullback-Leibler divergences KL(p || q), in closed form or from samples, in nats.

The order of the arguments is the direction, the same in every function. PMPO's divergence is the *forward* one,
reference first: `categorical_kl(reference, policy)` is KL(pi_ref || pi), the policy covers every mode of the reference.
`categorical_kl(policy, reference)` is the *reverse* one, KL(pi || pi_ref), the policy may settle on one mode.

The closed forms return one divergence a row, `(*runs, B)`; the losses take its mean, `(*runs,)`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .rows import full_precision, mean, present, row_weight


def categorical_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return KL(p || q) = sum_k p_k (log p_k - log q_k) of normalised log-probabilities `(..., K)` as `(...)`.

    Outcomes with p_k = 0 (`log_p` = -inf) count zero, as p log p does in the limit; it is +inf where q_k = 0 < p_k.
    """
    log_p, log_q = full_precision(log_p), full_precision(log_q)
    p = log_p.exp()
    return (p * present(log_p - log_q, p)).sum(-1)


def gaussian_kl(mean_p: Tensor, log_std_p: Tensor, mean_q: Tensor, log_std_q: Tensor) -> Tensor:
    """Return KL(p || q) of diagonal Gaussians over `(..., D)`, summed over the D dimensions, as `(...)`.

    With d = log(std_p / std_q) and z = (mean_p - mean_q) / std_q, each dimension adds (z^2 + e^2d - 1 - 2d) / 2.
    """
    mean_p, log_std_p = full_precision(mean_p), full_precision(log_std_p)
    d = log_std_p - log_std_q
    z = (mean_p - mean_q) * torch.exp(-log_std_q)
    return ((z.square() + torch.expm1(2 * d) - 2 * d) / 2).sum(-1)


def sampled_kl(logp_p: Tensor, logp_q: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the unbiased estimate E_p[log p - log q] of KL(p || q) from samples of p, `(*runs, B)` to `(*runs,)`.

    Forward: p is the reference or the behaviour that made the data, and the gradient is -E_ref[grad log pi], cloning.
    Where the density of p is not known, zeros for `logp_p` shift the value by p's entropy and leave that gradient. The
    reverse divergence needs samples of the policy, and its gradient does not flow through this estimate alone.

    Args:
        logp_p: `(*runs, B)`, log-probabilities under p of B samples drawn from p.
        logp_q: `(*runs, B)`, log-probabilities of the same samples under q.
        weight: `(*runs, B)`, at least 0: the average is weighted.
    """
    difference = full_precision(logp_p) - full_precision(logp_q)
    return mean(difference, row_weight(difference, weight))
