"""The bandit suite: declared for its family, and feedback is worth something where the truth is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmpo_offline.benchmark.suite import Job, expand
from pmpo_offline.build import build_dataset
from pmpo_offline.data import Dataset
from pmpo_offline.declarations import catalog
from pmpo_offline.evaluation import evaluate
from pmpo_offline.training import train
from pmpo_offline.training.control.stack import Stack


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return build_dataset("bandit/sphere-v0", episodes=4000, home=tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("references")


def returned(dataset: Dataset, algorithm: str, folder: Path, *, shuffle: bool = False) -> float:
    """Mean return of two runs after fewer updates than declared."""
    trained = train(
        dataset,
        algorithm,
        seeds=(0, 1),
        overrides={"updates": 80},
        references=folder,
        shuffle_labels=shuffle,
        device="cpu",
    )
    return float(evaluate(trained.policy, dataset.metadata.task, episodes=500, workers=1)["return"].mean())


@pytest.fixture(scope="module")
def cloned(dataset: Dataset, folder: Path) -> float:
    """Mean return of the clone of everything."""
    return returned(dataset, "bc", folder)


def test_every_cell_is_of_the_family():
    suite = catalog.suite("bandit")
    cells = expand(suite, dict.fromkeys(suite.datasets, "bandit"))
    assert {cell.algorithm.family for cell in cells} == {"bandit"}
    assert {cell.condition.dataset for cell in cells} == {
        f"bandit/{n}-v0" for n in ("sphere", "rosenbrock", "schwefel")
    }


def test_a_clone_repeats_the_behaviour(dataset: Dataset, cloned: float):
    recorded = dataset.table["reward"].to_numpy().mean()
    assert cloned == pytest.approx(recorded, abs=0.15)


@pytest.mark.parametrize("algorithm", ["accept", "reject-bc", "pmpo", "dpo", "dpo-labels", "kto", "mpo"])
def test_feedback_beats_cloning(dataset: Dataset, folder: Path, cloned: float, algorithm: str):
    assert returned(dataset, algorithm, folder) > cloned + 0.1


def test_shuffled_feedback_does_not(dataset: Dataset, folder: Path, cloned: float):
    assert returned(dataset, "pmpo", folder, shuffle=True) < cloned + 0.1


def test_pretraining_is_counted(dataset: Dataset):
    """Of 200 updates a learner that starts from a clone has what the clone leaves."""
    suite = catalog.revise(catalog.suite("bandit"), "test", {"updates": 200, "pretraining": 0.2})
    trained = {
        cell.algorithm.name: Job(suite, cell, dataset).training
        for cell in expand(suite, dict.fromkeys(suite.datasets, "bandit"))
    }
    assert trained["pmpo"]["updates"] == 200
    assert "pretraining" not in trained["pmpo"]
    assert (trained["kto"]["updates"], trained["kto"]["pretraining"]) == (160, 40)
    stack = Stack(dataset, catalog.algorithm("kto", "bandit"), overrides={"updates": 160, "pretraining": 40})
    assert stack.clone is not None
    assert stack.clone.hyper.updates == 40
    alike = Stack(dataset, catalog.algorithm("bc", "bandit"), overrides={"updates": 40})
    assert stack.clone.identity == alike.identity, "one clone for whoever trains as long"
