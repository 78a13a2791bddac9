"""A bandit: a table of logits over ten outcomes, half of them bad; minibatches are drawn from the reference."""

from __future__ import annotations

import polars as pl
import torch
from torch import Tensor

from benchmarks.experiments.stability.experiment import SEEDS, Arm, described, follow
from pmpo_offline import objectives
from pmpo_offline.objectives import divergences, stability

OUTCOMES, BATCH, RATE, FLIPPED = 10, 256, 0.02, 0.2
BAD_MASS = torch.linspace(0.1, 0.9, SEEDS)
"""The reference's probability of bad outcomes in each seed's problem: P_r, where no label is flipped."""
NOISY = "flipped labels"
ARMS = [Arm("bandit", alpha, normalize, "closed form") for alpha in (0.0, 0.5) for normalize in ("joint", "set")]
ARMS += [Arm("bandit", alpha, "joint", "closed form", NOISY) for alpha in (0.0, 0.5)]


def references() -> Tensor:
    """Return the reference of each seed's problem, (S, K): the first half of the outcomes is bad."""
    generators = [torch.Generator().manual_seed(100 + seed) for seed in range(SEEDS)]
    mass = torch.stack([torch.randn(OUTCOMES, generator=g, dtype=torch.float64).exp() for g in generators])
    bad, good = mass.split(OUTCOMES // 2, dim=1)
    share = BAD_MASS.double().unsqueeze(1)
    return torch.cat([share * bad / bad.sum(1, True), (1 - share) * good / good.sum(1, True)], dim=1)


def reject_probability(arm: Arm) -> Tensor:
    """Return the probability that each outcome is labelled as rejected, (K,); else it is accepted."""
    rate = FLIPPED if arm.variant == NOISY else 0.0
    return torch.where(torch.arange(OUTCOMES) < OUTCOMES // 2, 1 - rate, rate).double()


def bounds(arm: Arm) -> Tensor:
    """Return the least β of each problem, (S,)."""
    noise = FLIPPED if arm.variant == NOISY else 0.0
    p_reject = (references() @ reject_probability(arm)).tolist()
    return torch.tensor([stability.beta_min(arm.alpha, p, arm.normalize, noise=noise) for p in p_reject])


def run(arm: Arm, multiples: tuple[float, ...], updates: int = 3000) -> pl.DataFrame:
    """Train every β with every seed from the reference and return the trajectories."""
    reference, reject, bound = references(), reject_probability(arm), bounds(arm)
    beta = (torch.tensor(multiples).unsqueeze(1) * bound).unsqueeze(-1)  # (M, S, 1)
    settings = {"alpha": arm.alpha, "beta": beta, "normalize": arm.normalize}
    log_reference = reference.log().float()
    logits = log_reference.repeat(len(multiples), 1, 1).requires_grad_()
    generator = torch.Generator().manual_seed(100)

    def loss(step: int) -> Tensor:
        uniform = torch.rand(2, SEEDS, BATCH, generator=generator, dtype=torch.float64)
        outcome = torch.searchsorted(reference.cumsum(1), uniform[0]).clamp(max=OUTCOMES - 1)
        log_policy = logits.log_softmax(-1)
        logp = log_policy.gather(-1, outcome.expand(len(multiples), -1, -1))
        kl = divergences.categorical_kl(log_reference, log_policy)
        return objectives.pmpo(logp, uniform[1] >= reject[outcome], kl, **settings)[0]

    # Every outcome once with each label and with its probability as its weight: the loss itself, without a sample.
    weight = torch.cat([reference * (1 - reject), reference * reject], dim=1)
    label = torch.ones(2 * OUTCOMES).index_fill(0, torch.arange(OUTCOMES, 2 * OUTCOMES), -1.0).expand_as(weight)

    def measure() -> dict[str, Tensor]:
        log_policy = logits.double().log_softmax(-1)
        kl = divergences.categorical_kl(reference.log(), log_policy)
        value, metrics = objectives.pmpo(log_policy.repeat(1, 1, 2), label, kl, weight=weight, **settings)
        reward = log_policy[..., OUTCOMES // 2 :].exp().sum(-1)
        return {"loss": value, "reject_logp": metrics["reject_logp"], "kl": kl, "reward": reward}

    trajectories = follow([logits], loss, measure, updates=updates, rate=RATE)
    return described(trajectories, arm, multiples, bound=bound, reject_mass=reference @ reject)


def optimum(arm: Arm, beta: float, seed: int) -> tuple[float, float]:
    """Return the optimal policy's relative reward and its divergence from the reference.

    The reward is 0 for the reference and 1 for the best; ValueError below the bound.
    """
    reference, reject = references()[seed], reject_probability(arm)
    best = stability.optimal_policy(reference, 1 - reject, reject, alpha=arm.alpha, beta=beta, normalize=arm.normalize)
    return 1 - float(best[: OUTCOMES // 2].sum() / BAD_MASS[seed]), float(
        divergences.categorical_kl(reference.log(), best.log())
    )
