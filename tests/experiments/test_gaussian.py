"""A Gaussian without context: torch's own density, the same in every state, drawn from the numbers it is given."""

from __future__ import annotations

import torch

from benchmarks.experiments.bandits.gaussian import GaussianPolicy


def policy() -> GaussianPolicy:
    generator = torch.Generator().manual_seed(0)
    return GaussianPolicy(torch.randn(3, 4, generator=generator), torch.rand(3, 4, generator=generator) + 0.1)


def test_density_and_draws_are_torchs():
    gaussian = policy()
    distribution = gaussian(torch.zeros(3, 2, 1))
    oracle = torch.distributions.Normal(gaussian.mean[:, None], gaussian.log_std.exp()[:, None])
    action = torch.randn(3, 2, 4)
    torch.testing.assert_close(distribution.log_prob(action), oracle.log_prob(action).sum(-1))
    several = torch.randn(3, 2, 5, 4)
    torch.testing.assert_close(distribution.log_prob(several)[:, :, 1], distribution.log_prob(several[:, :, 1]))
    uniform, normal = torch.rand(3, 2), torch.randn(3, 2, 4)
    drawn = distribution.sample(uniform, normal)
    torch.testing.assert_close(drawn, oracle.loc + oracle.scale * normal)
    shared = distribution.sample(uniform[0], normal[0])
    torch.testing.assert_close(shared[0], drawn[0])


def test_states_do_not_matter_and_runs_are_apart():
    gaussian = policy()
    distribution = gaussian(torch.tensor([[[0.0], [9.0]]]).expand(3, 2, 1))
    torch.testing.assert_close(distribution.mode()[:, 0], distribution.mode()[:, 1])
    distribution.log_prob(torch.zeros(3, 2, 4))[1].sum().backward()
    assert gaussian.mean.grad is not None
    assert gaussian.mean.grad.any(dim=1).tolist() == [False, True, False]


def test_starts_are_copied():
    mean = torch.zeros(1, 2)
    gaussian = GaussianPolicy(mean, torch.ones(1, 2))
    mean += 1
    assert not gaussian.mean.any()
