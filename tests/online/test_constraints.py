"""MPO with learned duals, trained for real: its budgets are spent and not exceeded, and the reward improves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.experiments.bandits.gaussian import GaussianPolicy
from pmpo_offline.online.improver import Algorithm, Improver, OnlineSettings
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.tasks.bandit import FUNCTIONS
from pmpo_offline.training.control.constraints import Constraints

SPHERE = FUNCTIONS["sphere"]
START = -0.5
BUDGETS = ("target_kl_over_epsilon", "mean_kl_over_epsilon", "std_kl_over_epsilon")
FROM_ONE = (1.0, 1.0, 1.0)


def train(constraints: Constraints, seeds: list[int], steps: int) -> tuple[GaussianPolicy, dict[str, Tensor]]:
    """Improve Gaussians on the sphere; return them and every metric of every update, (steps, R) each."""
    runs = len(seeds)
    policy = GaussianPolicy(torch.full((runs, 2), START), torch.full((runs, 2), 0.5))
    hyper = OnlineSettings(candidates=20, refresh=0.01)
    improver = Improver(policy, Algorithm("mpo", constraints=constraints, learning_rate=0.005), hyper, seeds)
    states = torch.zeros(runs, 16, 1)
    updates = [improver.update(states, lambda observation, action: SPHERE.reward(action)) for _ in range(steps)]
    return policy, {name: torch.stack([metrics[name] for metrics in updates]) for name in updates[0]}


@pytest.fixture(scope="module")
def trained() -> tuple[GaussianPolicy, dict[str, Tensor]]:
    """Two seeds with three constraints in use, and a run whose deviation may do as it likes."""
    std = torch.tensor([[1e-3], [1e-3], [10.0]])
    return train(Constraints(mean=0.01, std=std, learning_rate=0.02, start=FROM_ONE), [0, 1, 0], steps=500)


def test_learned_duals_spend_the_budgets_and_no_more(trained: tuple[GaussianPolicy, dict[str, Tensor]]):
    """Means over the last 150 of 500 updates; over the first 50 the duals are still where they began."""
    early, late = (
        {name: trained[1][name][part].mean(0) for name in BUDGETS} for part in (slice(50), slice(-150, None))
    )
    assert (early["target_kl_over_epsilon"] > 1.5).all()
    assert (early["mean_kl_over_epsilon"] > 1.5).all()
    for name in BUDGETS:
        in_use = late[name][:2] if name.startswith("std") else late[name]
        assert ((in_use > 0.85) & (in_use < 1.15)).all(), name
    assert late["std_kl_over_epsilon"][2] < 0.01, "slack"


def test_the_reward_improves(trained: tuple[GaussianPolicy, dict[str, Tensor]]):
    policy, metrics = trained
    assert (SPHERE.regret(policy.mean.detach()) < 0.6 * SPHERE.regret(torch.full((2,), START))).all()
    deviation = policy.log_std.detach().exp().mean(-1)
    assert deviation[2] < deviation[:2].min(), "the deviation shrinks slower where it is held"
    assert (metrics["temperature"][-1] < 0.9 * metrics["temperature"][150]).all(), "it follows the scores"


def test_a_stacked_run_equals_the_run_alone():
    budgets = {"target": [0.1, 0.3], "mean": [0.01, 0.001], "std": [1e-3, 1e-4], "learning_rate": [0.01, 0.03]}
    stacked = {name: torch.tensor(values).unsqueeze(1) for name, values in budgets.items()}
    policy, metrics = train(Constraints(**stacked), [4, 7], steps=15)
    for run, seed in enumerate([4, 7]):
        own, alone = train(Constraints(**{name: values[run] for name, values in budgets.items()}), [seed], steps=15)
        torch.testing.assert_close(own.mean[0], policy.mean[run], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(own.log_std[0], policy.log_std[run], rtol=1e-5, atol=1e-6)
        for name in ("temperature", *BUDGETS):
            torch.testing.assert_close(alone[name][:, 0], metrics[name][:, run], rtol=1e-3, atol=1e-6)


def test_the_first_update_by_hand():
    """The policy is its own reference: no divergence of either part. The temperature is acme's 10."""
    _, metrics = train(Constraints(), [0], steps=2)
    assert metrics["temperature"][0].item() == pytest.approx(10)
    assert metrics["mean_kl_over_epsilon"][0].item() == metrics["std_kl_over_epsilon"][0].item() == 0
    torch.testing.assert_close(metrics["target_kl_over_epsilon"], metrics["target_kl"] / 0.1)
    # Adam's first move is its learning rate, before the softplus: the target's budget is not spent, so downwards.
    assert metrics["temperature"][1].item() == pytest.approx(9.99, abs=1e-5)


@pytest.mark.parametrize(
    ("objective", "settings", "message"),
    [
        ("pmpo", {}, "are for mpo, not for pmpo"),
        ("mpo", {"temperature": 0.5}, "temperature is given and constraints learn the temperature"),
        ("mpo", {"epsilon": 0.1}, "epsilon is given"),
    ],
)
def test_constraints_where_they_make_no_sense(objective: str, settings: dict[str, Any], message: str):
    policy = GaussianPolicy(torch.zeros(1, 2), torch.ones(1, 2))
    with pytest.raises(ValueError, match=message):
        Improver(policy, Algorithm(objective, settings, Constraints()), OnlineSettings(), [0])


@pytest.mark.parametrize("components", [1, 2])
def test_trust_regions_hold_mixtures_too(components: int):
    policy = MixturePolicy([0], torch.zeros(1), torch.ones(1), 2, components=components, hidden=(8,))
    improver = Improver(policy, Algorithm("mpo", constraints=Constraints()), OnlineSettings(), [0])
    for _ in range(2):
        metrics = improver.update(torch.zeros(1, 3, 1), lambda observation, action: SPHERE.reward(action))
    assert metrics["loss"].isfinite().all()
    assert metrics["mean_kl_over_epsilon"] > 0


@pytest.mark.parametrize("wrong", [{"target": 0.0}, {"std": torch.tensor([[1.0], [-1.0]])}, {"start": (1.0, 0.0, 1.0)}])
def test_budgets_are_positive(wrong: dict[str, Any]):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} of the constraints is above 0"):
        Constraints(**wrong)
