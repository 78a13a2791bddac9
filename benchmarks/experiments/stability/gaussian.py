"""A Gaussian: a diagonal policy over ten dimensions, on samples of N(0, I), best and worst quarter labelled."""

from __future__ import annotations

import polars as pl
import torch
from torch import Tensor

from benchmarks.experiments.stability.experiment import SEEDS, Arm, described, follow
from pmpo_offline import objectives
from pmpo_offline.objectives import stability
from pmpo_offline.policies import Mixture

DIMENSIONS, SAMPLES, BATCH, RATE = 10, 4096, 1024, 0.005
CENTRE = 0.3
"""The sphere's optimum, in every dimension; the reference's mean is 0."""
ARMS = [Arm("gaussian", alpha, normalize, "recorded") for alpha in (0.0, 0.5) for normalize in ("joint", "set")]


def datasets() -> tuple[Tensor, Tensor]:
    """Return samples (S, N, D) of N(0, I) and labels (S, N): +1 the best quarter, -1 the worst, 0 the others."""
    generators = [torch.Generator().manual_seed(100 + seed) for seed in range(SEEDS)]
    sample = torch.stack([torch.randn(SAMPLES, DIMENSIONS, generator=g) for g in generators])
    rank = (sample - CENTRE).square().sum(-1).argsort(1).argsort(1)
    return sample, (rank < SAMPLES // 4).float() - (rank >= SAMPLES - SAMPLES // 4).float()


def bounds(arm: Arm) -> Tensor:
    """Return the bound from the moments of each seed's dataset, (S,)."""
    sample, label = datasets()
    found = [
        stability.gaussian_beta_min(y[way > 0], y[way < 0], y, alpha=arm.alpha, normalize=arm.normalize)
        for y, way in zip(sample, label, strict=True)
    ]
    return torch.tensor(found)


def policy(mean: Tensor, log_std: Tensor) -> Mixture:
    """Return the Gaussians (..., D) as the package's distribution: mixtures of one."""
    return Mixture(mean.new_zeros(*mean.shape[:-1], 1), mean.unsqueeze(-2), log_std.unsqueeze(-2))


def reference() -> Mixture:
    """Return N(0, I), one a seed."""
    start = torch.zeros(SEEDS, DIMENSIONS)
    return policy(start, start)


def run(arm: Arm, multiples: tuple[float, ...], updates: int = 1500) -> pl.DataFrame:
    """Train every β with every seed from the reference and return the trajectories."""
    sample, label = datasets()
    bound = bounds(arm)
    beta = (torch.tensor(multiples).unsqueeze(1) * bound).unsqueeze(-1)  # (M, S, 1)
    mean = torch.zeros(len(multiples), SEEDS, DIMENSIONS, requires_grad=True)
    log_std = torch.zeros(len(multiples), SEEDS, DIMENSIONS, requires_grad=True)
    settings = {"alpha": arm.alpha, "beta": beta, "normalize": arm.normalize}
    generator = torch.Generator().manual_seed(100)

    def loss(step: int) -> Tensor:
        row = torch.randint(SAMPLES, (SEEDS, BATCH), generator=generator)
        drawn = sample.gather(1, row.unsqueeze(-1).expand(-1, -1, DIMENSIONS))
        logp = policy(mean, log_std).log_prob(drawn.unsqueeze(0))  # (M, S, B)
        return objectives.pmpo(logp, label.gather(1, row), -logp.mean(-1), **settings)[0]

    def measure() -> dict[str, Tensor]:
        logp = policy(mean, log_std).log_prob(sample.unsqueeze(0))  # (M, S, N)
        value, metrics = objectives.pmpo(logp, label, -logp.mean(-1), **settings)
        return {
            "loss": value,
            "reject_logp": metrics["reject_logp"],
            "kl": reference().log_prob(sample).mean(-1) - logp.mean(-1),
            # 0 is the reference, 1 the sphere's optimum.
            "reward": 1 - _cost(mean, log_std.exp().square()) / _cost(torch.zeros(DIMENSIONS), torch.ones(DIMENSIONS)),
        }

    return described(follow([mean, log_std], loss, measure, updates=updates, rate=RATE), arm, multiples, bound=bound)


def optimum(arm: Arm, beta: float, seed: int) -> tuple[float, float]:
    """Return the optimal Gaussian's relative reward and its divergence from the reference.

    The reward is 0 for the reference and 1 for the best; ValueError below the bound.
    """
    sample, label = (each[seed] for each in datasets())
    mean, std = stability.gaussian_optimum(
        sample[label > 0], sample[label < 0], sample, alpha=arm.alpha, beta=beta, normalize=arm.normalize
    )
    start = torch.zeros(DIMENSIONS)
    kl = (policy(start, start).log_prob(sample) - policy(mean, std.log()).log_prob(sample)).mean()
    return float(1 - _cost(mean, std.square()) / _cost(start, start + 1)), float(kl)


def _cost(mean: Tensor, variance: Tensor) -> Tensor:
    """Expected squared distance from the optimum."""
    return ((mean - CENTRE).square() + variance).sum(-1)
