"""EM for Gaussian mixtures: solves PMPO with a mixture policy where no row has a negative weight.

PMPO (Abdolmaleki et al., arXiv 2410.04166, Eq. 10) with accepts only, alpha = 1 and beta = 0, is a weighted maximum
likelihood: it is the M-step of the paper's own EM, whose E-step weighs the outcomes of the reference by their chance of
being accepted. Accepted rows are samples of that posterior, so each weighs one. For a mixture of Gaussians

    L(pi) = sum_i w_i log sum_k pi_k N(y_i; mu_k, sigma_k^2)

which component made a row is hidden as well, and EM over it (Dempster, Laird and Rubin 1977) needs no step size::

    E:  r_ik = pi_k N(y_i; mu_k, sigma_k^2) / sum_j pi_j N(y_i; mu_j, sigma_j^2)
    M:  n_k = sum_i w_i r_ik,   pi_k = n_k / sum_j n_j,   mu_k = sum_i w_i r_ik y_i / n_k,
        sigma_k^2 = sum_i w_i r_ik (y_i - mu_k)^2 / n_k, at least min_std^2

No step lowers L: the E-step makes a lower bound touch it, the M-step maximises the bound. A floor of the deviation does
not spoil that, for the best variance of at least min_std^2 is the larger of the two; adding a constant to the variances
does. Where a row weighs less than nothing the bound is none, so rejects cannot enter as they are. But PMPO with its
divergence sampled on the rows, `kl = -mean(logp)`, is linear in the log-probabilities of the rows, and with beta at its
bound no coefficient is negative: `pmpo_weight` returns them, and EM then solves PMPO with rejects too.

Policies here see no observation: a `Mixture` of shape (R, 1, K, ...), R runs at once, components with diagonal
covariance. Actions (R, N, A), or (1, N, A) shared by all runs; weights (R, N). Prefer float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from pmpo_offline.objectives import pmpo
from pmpo_offline.objectives.rows import Setting, mean
from pmpo_offline.policies import Mixture


def expectation(mixture: Mixture, action: Tensor) -> tuple[Tensor, Tensor]:
    """Return how likely each component made each row, (R, N, K), and the rows' log-density, (R, N) in nats."""
    # Every component as a mixture of one that keeps its weight: the density of Gaussians is written once, in Mixture.
    parts = Mixture(mixture.log_weight.mT, mixture.mean.transpose(1, 2), mixture.log_std.transpose(1, 2))
    joint = parts.log_prob(action.unsqueeze(1))  # (R, K, N)
    log_prob = joint.logsumexp(1)
    return (joint - log_prob.unsqueeze(1)).exp().mT, log_prob


def maximisation(
    mixture: Mixture, action: Tensor, responsibility: Tensor, weight: Tensor, *, min_std: float
) -> Mixture:
    """Return the mixture that maximises the bound made by these responsibilities.

    A component without rows gets weight zero and keeps its place; a run whose rows all weigh nothing stays as it is.

    Args:
        mixture: the one before, (R, 1, K, ...).
        action: (R or 1, N, A); rows of weight zero may hold anything.
        responsibility: (R, N, K), from `expectation`.
        weight: (R, N), at least 0.
        min_std: least standard deviation, in units of the action.
    """
    counted = (weight > 0).unsqueeze(-1)
    action = torch.where(counted, action, 0)
    share = torch.where(counted, weight.unsqueeze(-1) * responsibility, 0)  # (R, N, K)
    mass = share.sum(1)  # (R, K)
    total = mass.sum(-1, keepdim=True)
    alive = mass > 0
    share = share / torch.where(alive, mass, 1).unsqueeze(1)

    centre = torch.einsum("rnk,rna->rka", share, action)
    # Squares of differences, not a difference of squares: that would cancel where a component is narrow.
    distance = (action.unsqueeze(2) - centre.unsqueeze(1)).square()
    variance = torch.einsum("rnk,rnka->rka", share, distance).clamp(min=min_std**2)

    log_weight = torch.where(total > 0, mass / torch.where(total > 0, total, 1), 0).log()
    kept = alive.unsqueeze(-1)
    return Mixture(
        torch.where(total > 0, log_weight, mixture.log_weight.squeeze(1)).unsqueeze(1),
        torch.where(kept, centre, mixture.mean.squeeze(1)).unsqueeze(1),
        torch.where(kept, 0.5 * variance.log(), mixture.log_std.squeeze(1)).unsqueeze(1),
    )


def fit_mixture(
    start: Mixture, action: Tensor, weight: Tensor, *, iterations: int = 100, min_std: float = 0.01
) -> tuple[Mixture, Tensor]:
    """Run EM and return the mixture with its mean log-likelihood before, between and after the steps.

    Args:
        start: (R, 1, K, ...), deviations at least `min_std`; see `start_mixture`.
        action: (R or 1, N, A); rows of weight zero may hold anything.
        weight: (R, N), at least 0: 1 for an accepted row, 0 for any other, or what `pmpo_weight` says.
        iterations: EM steps, at least 0.
        min_std: least standard deviation, positive, in units of the action; without one a component that owns a
            single row shrinks onto it and the likelihood is unbounded.

    Returns:
        The mixture, and (R, iterations + 1): the weighted mean of the rows' log-densities in nats, never falling;
        0 for a run whose rows all weigh nothing.

    Raises:
        ValueError: a negative weight, a floor that is not positive, a component of the start below it, or another
            number of runs or rows.
    """
    runs, rows = start.log_weight.shape[0], action.shape[1]
    if weight.shape != (runs, rows):
        raise ValueError(f"weight is (runs, rows) = {(runs, rows)}, not {tuple(weight.shape)}")
    if not bool((weight >= 0).all()):
        raise ValueError(f"EM needs row weights of at least 0, not {weight.min().item():g}")
    if not min_std > 0:
        raise ValueError(f"min_std is above 0, not {min_std:g}")
    if bool((start.log_std.exp() < min_std * (1 - 1e-6)).any()):
        raise ValueError(f"the start has a deviation of {start.log_std.exp().min().item():g} below min_std {min_std:g}")
    mixture, trace = start, []
    for _ in range(iterations):
        responsibility, log_prob = expectation(mixture, action)
        trace.append(mean(log_prob, weight))
        mixture = maximisation(mixture, action, responsibility, weight, min_std=min_std)
    trace.append(mean(mixture.log_prob(action), weight))
    return mixture, torch.stack(trace, dim=-1)


def start_mixture(
    action: Tensor, weight: Tensor, components: int, seeds: Sequence[int], *, min_std: float = 0.01
) -> Mixture:
    """Return a start for EM: means on rows far apart (k-means++, Arthur and Vassilvitskii 2007), equal weights.

    A run starts alike alone and in a stack. A run whose rows all weigh nothing starts at the origin, one unit wide.

    Args:
        action: (R or 1, N, A).
        weight: (R, N), at least 0; rows are drawn in proportion to it.
        components: K.
        seeds: one a run.
        min_std: least standard deviation.
    """
    counted = (weight > 0).unsqueeze(-1)
    action = torch.where(counted, action, 0)
    draws = [torch.rand(components, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    uniform = torch.stack(draws).to(action)  # (R, K)
    chance, means = weight.to(action), []
    for k in range(components):
        below = chance.cumsum(1)
        # Up to rounding, strictly below the total: the row found then has a chance above zero.
        index = torch.searchsorted(below, uniform[:, k : k + 1] * below[:, -1:], right=True)
        index = index.clamp(max=action.shape[1] - 1)
        means.append(action.gather(1, index.unsqueeze(-1).expand(-1, -1, action.shape[-1])))
        nearest = (action.unsqueeze(2) - torch.stack(means, 2)).square().sum(-1).amin(2)
        chance = torch.where((weight > 0) & (nearest * weight).sum(1, keepdim=True).gt(0), nearest * weight, weight)
    variance = mean((action - mean(action.mT, weight.unsqueeze(1)).unsqueeze(1)).square().mT, weight.unsqueeze(1))
    # K components share the volume of the rows.
    std = variance.sqrt() / components ** (1 / action.shape[-1])
    std = torch.where(weight.sum(1, keepdim=True) > 0, std, 1).clamp(min=min_std)
    centre = torch.stack(means, 2)
    return Mixture(
        torch.full_like(centre[..., 0], 1 / components).log(), centre, std[:, None, None].expand_as(centre).log()
    )


def pmpo_weight(
    label: Tensor, *, alpha: Setting, beta: Setting, normalize: Literal["joint", "set"] = "joint"
) -> Tensor:
    """Return the coefficient that PMPO puts on the log-probability of every row: EM with these weights solves it.

    The divergence is sampled on all rows, `kl = -mean(logp)`: an unlabelled row weighs beta / N, an accepted one more,
    a rejected one less. It is the gradient of the objective, so nothing is written twice.

    Args:
        label: (R, N), +1 accept, -1 reject, 0 unlabelled.
        alpha: in [0, 1]; a number or (R, 1).
        beta: a number or (R, 1).
        normalize: as in `objectives.pmpo`.

    Raises:
        ValueError: beta is below its bound on these rows: a rejected row would weigh less than nothing.
    """
    logp = torch.zeros(label.shape, dtype=torch.float64, device=label.device, requires_grad=True)
    loss, _ = pmpo(logp, label, -logp.mean(-1), alpha=alpha, beta=beta, normalize=normalize)
    (gradient,) = torch.autograd.grad(loss.sum(), logp)
    weight = -gradient
    least = weight.min().item()
    if least < -1e-12:
        raise ValueError(f"beta is below its bound: a rejected row would weigh {least:g}; EM needs at least 0")
    return weight.clamp(min=0)
