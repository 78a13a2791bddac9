"""Divergence of a policy from its reference, state by state: closed between Gaussians, and between categorical ones.

Between mixtures it is estimated from drawn actions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pmpo_offline.objectives import divergences
from pmpo_offline.policies import Categorical, Mixture

DRAWS = 8
"""Actions drawn from the reference in each state where there is no closed form."""


def from_reference(policy: Mixture, reference: Mixture, kind: str, order: Any, seed: int) -> Tensor:
    """Return the divergence between two mixtures over (R, B) states, (R, B).

    Args:
        policy: with its gradient.
        reference: without.
        kind: "forward" KL(reference || policy), "reverse" KL(policy || reference), "alpha" or "renyi".
        order: of "alpha" and "renyi": near 1 they are like the forward, near 0 like the reverse divergence. A number or
            (R, 1).
        seed: of the draws, which all runs share: a run is then the same alone and in a stack.
    """
    if isinstance(policy, Categorical):
        logs = (reference.log_weight, policy.log_weight)
        if kind in ("forward", "reverse"):
            return divergences.categorical_kl(*(logs if kind == "forward" else logs[::-1]))
        return (divergences.categorical_alpha if kind == "alpha" else divergences.categorical_renyi)(*logs, order)
    if policy.log_weight.shape[-1] == reference.log_weight.shape[-1] == 1:
        # (R, B, A): a mixture of one is a Gaussian.
        p, q = ((mixture.mean.squeeze(-2), mixture.log_std.squeeze(-2)) for mixture in (reference, policy))
        if kind in ("forward", "reverse"):
            return divergences.gaussian_kl(*p, *q) if kind == "forward" else divergences.gaussian_kl(*q, *p)
        return (divergences.gaussian_alpha if kind == "alpha" else divergences.gaussian_renyi)(*p, *q, order)
    with torch.no_grad():
        action = reference.draw(DRAWS, torch.Generator().manual_seed(seed))
        logp_reference = reference.log_prob(action)
    logp_policy = policy.log_prob(action)
    if kind == "forward":
        return divergences.sampled_kl(logp_reference, logp_policy)
    if kind == "reverse":
        return divergences.sampled_alpha(logp_reference, logp_policy, 0.0)
    sampled = divergences.sampled_alpha if kind == "alpha" else divergences.sampled_renyi
    return sampled(logp_reference, logp_policy, order.unsqueeze(-1) if isinstance(order, Tensor) else order)


def decoupled_kl(reference: Mixture, policy: Mixture) -> tuple[Tensor, Tensor]:
    """Return the parts of KL(reference || policy) that MPO bounds apart, of the means and of the deviations, (R, B).

    Of single Gaussians they are those of `divergences.gaussian_kl_decoupled`. The KL of two mixtures is at most that of
    their weights plus the mean of their components' KL by the reference's weights (the chain rule, with the component
    as a latent variable; Do, *Fast approximation of Kullback-Leibler distance for dependence trees and hidden Markov
    models*, 2003): each part is that mean, and the weights go with the means.
    """
    moments = (values for p in (reference, policy) for values in (p.mean, p.log_std))  # (R, B, K, A)
    of_mean, of_std = divergences.gaussian_kl_decoupled(*moments)  # (R, B, K)
    share = reference.log_weight.exp()
    of_weights = divergences.categorical_kl(reference.log_weight, policy.log_weight)
    return (share * of_mean).sum(-1) + of_weights, (share * of_std).sum(-1)
