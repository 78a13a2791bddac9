"""Divergence of a policy from its reference, state by state: closed between Gaussians, else from drawn actions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pmpo_offline.objectives import divergences
from pmpo_offline.policies import Mixture

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
    if policy.log_weight.shape[-1] == reference.log_weight.shape[-1] == 1:
        p, q = (
            (each.mean.squeeze(-2), each.log_std.squeeze(-2)) for each in (reference, policy)
        )  # (R, B, A): a mixture of one is a Gaussian
        match kind:
            case "forward":
                return divergences.gaussian_kl(*p, *q)
            case "reverse":
                return divergences.gaussian_kl(*q, *p)
            case "alpha":
                return divergences.gaussian_alpha(*p, *q, order)
            case _:
                return divergences.gaussian_renyi(*p, *q, order)
    with torch.no_grad():
        action = torch.stack(draw(reference, DRAWS, seed), dim=-2)  # (R, B, DRAWS, A)
        logp_reference = reference.log_prob(action)
    logp_policy = policy.log_prob(action)
    if isinstance(order, Tensor):
        order = order.unsqueeze(-1)
    match kind:
        case "forward":
            return divergences.sampled_kl(logp_reference, logp_policy)
        case "reverse":
            return divergences.sampled_alpha(logp_reference, logp_policy, 0.0)
        case "alpha":
            return divergences.sampled_alpha(logp_reference, logp_policy, order)
        case _:
            return divergences.sampled_renyi(logp_reference, logp_policy, order)


def draw(distribution: Mixture, times: int, seed: int) -> list[Tensor]:
    """Draw actions `times` over, (R, B, A) each, from random numbers that all runs share."""
    *_, states, _, action_dim = distribution.mean.shape
    generator = torch.Generator().manual_seed(seed)
    device = distribution.mean.device
    drawn = []
    for _ in range(times):
        uniform = torch.rand(states, generator=generator).to(device)
        normal = torch.randn(states, action_dim, generator=generator).to(device)
        drawn.append(distribution.sample(uniform, normal))
    return drawn
