"""Categorical policies: probabilities, draws, and divergences against their definitions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pmpo_offline.policies import Categorical, CategoricalPolicy, MixturePolicy
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.training.control.divergence import from_reference

SHARES = torch.tensor([[[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]])


def test_a_log_probability_is_that_of_the_chosen_action() -> None:
    choice = Categorical.of(SHARES.log())
    one_hot = torch.eye(3)[[1, 2]][None]
    assert choice.log_prob(one_hot).exp().tolist() == [pytest.approx([0.3, 0.8])]
    several = torch.eye(3).expand(1, 2, 3, 3)
    assert choice.log_prob(several).exp().allclose(SHARES)
    assert choice.mode().argmax(-1).tolist() == [[0, 2]]


def test_draws_have_the_probabilities() -> None:
    choice = Categorical.of(SHARES[:, :1].expand(1, 20_000, 3).log())
    action = choice.draw(1, torch.Generator().manual_seed(0)).squeeze(-2)
    assert action.sum(-1).eq(1).all()
    assert action.mean((0, 1)).tolist() == pytest.approx([0.5, 0.3, 0.2], abs=0.015)


def test_divergences_are_closed() -> None:
    p, q = Categorical.of(SHARES[:, :1].log()), Categorical.of(SHARES[:, 1:].log())
    forward = sum(b * (b / a).log() for a, b in zip(SHARES[0, 0], SHARES[0, 1], strict=True))
    reverse = sum(a * (a / b).log() for a, b in zip(SHARES[0, 0], SHARES[0, 1], strict=True))
    assert float(from_reference(p, q, "forward", 0.0, 0)) == pytest.approx(float(forward))
    assert float(from_reference(p, q, "reverse", 0.0, 0)) == pytest.approx(float(reverse))
    hellinger = 1 - (SHARES[0, 0] * SHARES[0, 1]).sqrt().sum()
    assert float(from_reference(p, q, "alpha", 0.5, 0)) == pytest.approx(4 * float(hellinger))


def test_a_policy_comes_back_and_runs_are_their_own(tmp_path: Path) -> None:
    policy = CategoricalPolicy([3, 4], torch.ones(2), torch.full((2,), 2.0), 5, hidden=[8])
    policy.save(tmp_path / "policy.safetensors")
    again = MixturePolicy.load(tmp_path / "policy.safetensors")
    assert isinstance(again, CategoricalPolicy)
    observation = torch.randn(1, 6, 2, generator=torch.Generator().manual_seed(0))
    seen = observation.expand(2, -1, -1)
    assert again(seen).log_weight.equal(policy(seen).log_weight)
    alone = CategoricalPolicy([4], torch.ones(2), torch.full((2,), 2.0), 5, hidden=[8])
    assert alone(observation).log_weight[0].allclose(policy(seen).log_weight[1], atol=1e-6)
    assert policy.select(1).predict(observation[0].numpy()).shape == (6,)
    with pytest.raises(UserError, match="no run 9: the policy holds runs 0 to 1"):
        policy.select(9)
    mixture = MixturePolicy([0], torch.ones(2), torch.ones(2), 5, components=2, hidden=[8])
    mixture.save(tmp_path / "mixture.safetensors")
    with pytest.raises(PmpoOfflineError, match="no policy"):
        CategoricalPolicy.load(tmp_path / "mixture.safetensors")
