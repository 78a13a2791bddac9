"""MPO in the offline trainer with its dual and trust regions: parts of the KL by hand, budgets that are spent."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pmpo_offline.build import build_dataset
from pmpo_offline.data import Dataset
from pmpo_offline.objectives.divergences import gaussian_kl_decoupled
from pmpo_offline.policies import Mixture
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.training import train
from pmpo_offline.training.config import algorithm_for, complete
from pmpo_offline.training.control.config import TrainingSettings
from pmpo_offline.training.control.divergence import decoupled_kl, from_reference
from pmpo_offline.training.control.stack import Stack


def mixture(weight: list[float], mean: list[list[float]], std: list[list[float]]) -> Mixture:
    """One state of one run."""
    shaped = (torch.tensor(values, dtype=torch.float64)[None, None] for values in (weight, mean, std))
    share, at, deviation = shaped
    return Mixture(share.log(), at, deviation.log())


def test_parts_of_single_gaussians_are_those_of_the_objectives() -> None:
    p, q = mixture([1.0], [[0.0, 1.0]], [[1.0, 0.5]]), mixture([1.0], [[0.5, 1.0]], [[1.0, 1.0]])
    found = decoupled_kl(p, q)
    known = gaussian_kl_decoupled(*(values.squeeze(-2) for each in (p, q) for values in (each.mean, each.log_std)))
    torch.testing.assert_close(found, known)
    # .5^2 / 2, and with d = log(1/2): (1/4 - 1 + 2 log 2) / 2
    assert [part.item() for part in found] == pytest.approx([0.125, (math.log(2) - 0.375)])


def test_parts_of_mixtures_by_hand_and_above_the_kl() -> None:
    p = mixture([0.25, 0.75], [[0.0], [4.0]], [[1.0], [1.0]])
    q = mixture([0.5, 0.5], [[1.0], [4.0]], [[1.0], [2.0]])
    of_mean, of_std = (part.item() for part in decoupled_kl(p, q))
    weights = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert of_mean == pytest.approx(0.25 * 0.5 + weights)
    assert of_std == pytest.approx(0.75 * (0.25 - 1 + 2 * math.log(2)) / 2)
    same = mixture([0.25, 0.75], [[0.5], [4.5]], [[1.0], [1.0]])
    drawn = torch.stack([from_reference(same, p, "forward", 0.0, seed) for seed in range(400)])
    assert drawn.mean() < sum(decoupled_kl(p, same)).item() + 2 * drawn.std() / 20


@pytest.fixture(scope="module")
def bandit(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return build_dataset("bandit/sphere-v0", home=tmp_path_factory.mktemp("home"), workers=1)


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the clone that all trainings of these tests start from is kept."""
    return tmp_path_factory.mktemp("references")


def spent(dataset: Dataset, references: Path, **overrides: Any) -> dict[str, Tensor]:
    trained = train(
        dataset,
        "mpo-trust-region",
        seeds=(0, 1),
        overrides={"components": 1, "epsilon_std": 1e-2, **overrides},
        device="cpu",
        references=references,
    )
    return trained.metrics


def test_the_temperature_spends_its_budget_and_trust_regions_hold(bandit: Dataset, references: Path) -> None:
    metrics = spent(bandit, references, updates=300, epsilon_target=0.3, epsilon_mean=0.01)
    assert metrics["target_kl_over_epsilon"].tolist() == pytest.approx([1, 1], abs=0.1)
    assert (metrics["mean_kl_over_epsilon"] < 1.2).all()
    assert (metrics["std_kl_over_epsilon"] < 1.2).all()


def test_a_frozen_reference_bounds_the_whole_way(bandit: Dataset, references: Path) -> None:
    """Without `refresh` the region is about the clone: a tighter one ends nearer."""
    near, far = (spent(bandit, references, updates=200, refresh=0.0, epsilon_mean=epsilon) for epsilon in (0.01, 0.1))
    assert (near["mean_kl_over_epsilon"] * 0.01 < 0.5 * far["mean_kl_over_epsilon"] * 0.1).all()
    assert (near["mean_kl_over_epsilon"] > 0.5).all()


def test_constraints_of_other_objectives_and_a_temperature_of_ones_own_are_refused(
    bandit: Dataset, tmp_path: Path
) -> None:
    quick = {"updates": 2, "epsilon_target": 0.1}
    with pytest.raises(UserError, match=r"pmpo.epsilon_target: constraints with their temperature are for mpo"):
        train(bandit, "pmpo", overrides=quick, device="cpu")
    with pytest.raises(UserError, match=r"mpo.epsilon_target: epsilon is given"):
        train(bandit, "mpo", overrides=quick, device="cpu", references=tmp_path)
    assert not list(tmp_path.iterdir()), "before the clone is trained"


def test_settings_that_a_suite_has_completed_are_those_of_the_algorithm(bandit: Dataset) -> None:
    whole = complete(algorithm_for("mpo-trust-region", bandit), {})
    assert {"temperature", "epsilon"} <= whole.keys()
    trained = train(bandit, "mpo-trust-region", settings=whole, overrides={"updates": 2}, device="cpu")
    assert trained.metrics["target_kl_over_epsilon"].isfinite().all()


def test_trainings_without_constraints_keep_their_identity(bandit: Dataset) -> None:
    assert not TrainingSettings().identified.keys() & {"epsilon_target", "epsilon_mean", "epsilon_std"}
    algorithm = algorithm_for("mpo-trust-region", bandit)
    stacks = [Stack(bandit, algorithm, overrides={"epsilon_mean": epsilon}) for epsilon in (0.01, 0.1)]
    assert stacks[0].identity != stacks[1].identity
