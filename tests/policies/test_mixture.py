"""Mixture densities, choices and samples against torch.distributions and exact frequencies."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from pmpo_offline.policies import Mixture, MixturePolicy

R, B, K, A, M, O = 3, 7, 4, 5, 6, 9  # noqa: E741


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> None:
    torch.manual_seed(0)


@pytest.fixture
def mixture() -> Mixture:
    generator = torch.Generator().manual_seed(0)
    return Mixture(
        torch.log_softmax(torch.randn(R, B, K, generator=generator), -1),
        torch.randn(R, B, K, A, generator=generator),
        torch.randn(R, B, K, A, generator=generator).clamp(-2, 0.5),
    )


@pytest.fixture
def action() -> Tensor:
    return torch.randn(R, B, M, A, generator=torch.Generator().manual_seed(1))


def peer(mixture: Mixture) -> MixtureSameFamily:
    components = Independent(Normal(mixture.mean, mixture.log_std.exp()), 1)
    return MixtureSameFamily(Categorical(logits=mixture.log_weight), components)


def policy(seeds: list[int], components: int = K, **kwargs: object) -> MixturePolicy:
    mean = torch.linspace(-1, 1, O)
    std = torch.linspace(0.5, 2, O)
    return MixturePolicy(seeds, mean, std, A, components=components, hidden=(16, 16), **kwargs)  # type: ignore[arg-type]


def test_log_prob_is_that_of_torch(mixture: Mixture, action: Tensor) -> None:
    torch.testing.assert_close(mixture.log_prob(action[:, :, 0]), peer(mixture).log_prob(action[:, :, 0]))


def test_grouped_log_prob_equals_one_by_one(mixture: Mixture, action: Tensor) -> None:
    grouped = mixture.log_prob(action)
    assert grouped.shape == (R, B, M)
    for m in range(M):
        torch.testing.assert_close(grouped[..., m], mixture.log_prob(action[:, :, m]))


def test_density_of_a_group_of_one(mixture: Mixture, action: Tensor) -> None:
    torch.testing.assert_close(mixture.log_prob(action[:, :, :1])[..., 0], mixture.log_prob(action[:, :, 0]))


def test_far_actions_have_a_finite_density_and_gradient(mixture: Mixture) -> None:
    mean = mixture.mean.clone().requires_grad_()
    density = Mixture(mixture.log_weight, mean, mixture.log_std).log_prob(torch.full((R, B, A), 1e4))
    density.sum().backward()
    assert torch.isfinite(density).all()
    assert mean.grad is not None
    assert torch.isfinite(mean.grad).all()


def test_one_component_is_a_gaussian() -> None:
    one = policy([0, 1], components=1)
    observation = torch.randn(2, B, O)
    distribution = one(observation)
    assert (distribution.log_weight == 0).all()
    gaussian = Independent(Normal(distribution.mean[..., 0, :], distribution.log_std[..., 0, :].exp()), 1)
    action = torch.randn(2, B, A)
    torch.testing.assert_close(distribution.log_prob(action), gaussian.log_prob(action))
    torch.testing.assert_close(distribution.mode(), gaussian.mean)
    torch.testing.assert_close(distribution.component(torch.rand(B)), gaussian.mean)


def test_components_are_chosen_as_often_as_they_weigh(mixture: Mixture) -> None:
    # On a regular grid of "random" numbers the frequencies are exact to one grid point.
    grid = 1000
    for r, b in ((0, 0), (2, 5)):
        state = Mixture(*(part[r, b].expand(1, grid, *part.shape[2:]) for part in parts(mixture)))
        chosen = state.component((torch.arange(grid) + 0.5) / grid)
        for k in range(K):
            share = (chosen[0] == mixture.mean[r, b, k]).all(-1).float().mean()
            assert share == pytest.approx(float(mixture.log_weight[r, b, k].exp()), abs=1.5 / grid)


def parts(mixture: Mixture) -> tuple[Tensor, Tensor, Tensor]:
    return mixture.log_weight, mixture.mean, mixture.log_std


@pytest.mark.parametrize("number", [0.0, 1 - 2**-24])
def test_extreme_numbers_choose_a_component(mixture: Mixture, number: float) -> None:
    chosen = mixture.component(torch.full((B,), number))
    assert ((chosen[..., None, :] == mixture.mean).all(-1).sum(-1) == 1).all()


def test_samples_have_the_mean_and_the_spread_of_the_mixture(mixture: Mixture) -> None:
    n = 100_000
    generator = torch.Generator().manual_seed(2)
    state = Mixture(*(part[1, 3].expand(1, n, *part.shape[2:]) for part in parts(mixture)))
    drawn = state.sample(torch.rand(n, generator=generator), torch.randn(n, A, generator=generator))[0]
    expected = peer(Mixture(*(part[1:2, 3:4] for part in parts(mixture))))
    deviation = expected.variance[0, 0].sqrt()
    assert ((drawn.mean(0) - expected.mean[0, 0]).abs() < 4 * deviation / n**0.5).all()
    torch.testing.assert_close(drawn.std(0), deviation, rtol=0.03, atol=0)


def test_without_jitter_a_sample_is_a_choice(mixture: Mixture) -> None:
    uniform = torch.rand(B)
    torch.testing.assert_close(mixture.sample(uniform, torch.zeros(B, A)), mixture.component(uniform))


def test_mode_is_the_likeliest_component(mixture: Mixture) -> None:
    for r in range(R):
        for b in range(B):
            assert mixture.mode()[r, b].equal(mixture.mean[r, b, int(mixture.log_weight[r, b].argmax())])


def test_a_run_starts_alike_alone_and_in_a_stack() -> None:
    stacked = policy([5, 0, 5])
    observation = torch.randn(1, B, O)
    together = stacked(observation.expand(3, -1, -1))
    for run, seed in enumerate([5, 0, 5]):
        alone = policy([seed])
        for one, many in zip(alone.parameters(), stacked.parameters(), strict=True):
            assert one[0].equal(many[run])
        torch.testing.assert_close(parts(alone(observation))[1][0], together.mean[run])
    assert not together.mean[0].equal(together.mean[1])


def test_components_start_apart() -> None:
    distribution = policy([0])(torch.zeros(1, 1, O))
    gaps = torch.pdist(distribution.mean[0, 0])
    assert gaps.min() > 0.1, "components that start alike learn the same mode"


def test_normalises_by_the_data_and_bounds_the_deviations() -> None:
    shifted = policy([0], std_range=(0.1, 0.5))
    at_the_mean = shifted(shifted.observation_mean.expand(1, 1, -1))
    centred = MixturePolicy([0], torch.zeros(O), torch.ones(O), A, components=K, hidden=(16, 16), std_range=(0.1, 0.5))
    torch.testing.assert_close(at_the_mean.mean, centred(torch.zeros(1, 1, O)).mean)
    wild = shifted(torch.randn(1, 1000, O) * 1e6)
    assert torch.isfinite(wild.mean).all(), "observations far outside the data are clamped"
    deviation = wild.log_std.exp()
    assert deviation.min() >= 0.1 - 1e-6
    assert deviation.max() <= 0.5 + 1e-6


def test_constant_columns_do_not_divide_by_zero() -> None:
    constant = MixturePolicy([0], torch.ones(O), torch.zeros(O), A, hidden=(8,))
    assert torch.isfinite(constant(torch.full((1, 2, O), 1.1)).mean).all()


def test_a_conditional_policy_reads_the_label_and_acts_on_accept(tmp_path: Path) -> None:
    made = policy([0, 1], conditional=True)
    observation = torch.randn(2, B, O)
    accept, reject, hidden = (made(observation, torch.full((2, B), sign)).mean for sign in (1.0, -1.0, 0.0))
    torch.testing.assert_close(made(observation).mean, accept, rtol=0, atol=0)
    assert not accept.equal(reject)
    assert not accept.equal(hidden)
    made.save(tmp_path / "policy.safetensors")
    loaded = MixturePolicy.load(tmp_path / "policy.safetensors")
    assert loaded.conditional
    torch.testing.assert_close(loaded(observation).mean, accept, rtol=0, atol=0)


def test_others_ignore_a_label() -> None:
    made, observation = policy([0]), torch.randn(1, B, O)
    torch.testing.assert_close(made(observation, torch.zeros(1, B)).mean, made(observation).mean, rtol=0, atol=0)
