"""Discrete actions from a file to an evaluated policy: CartPole, and one choice whose optimum is known."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pyarrow as pa
import pytest
import torch

from pmpo_offline import data
from pmpo_offline.build import import_dataset
from pmpo_offline.data import Dataset, Rows
from pmpo_offline.declarations.catalog import root
from pmpo_offline.evaluation import evaluate
from pmpo_offline.policies import CategoricalPolicy
from pmpo_offline.training.control.trainer import Trained, train
from pmpo_offline.training.run import load_policy

SHORT = {"updates": 150, "hidden": [32], "batch": 128, "learning_rate": 5e-3, "averaging": 0.98}


def balancing(observation: np.ndarray) -> int:
    """Push towards where the pole falls: CartPole's best short rule, which reaches 500."""
    return int(observation[2] + 0.5 * observation[3] + 0.02 * observation[0] + 0.1 * observation[1] > 0)


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Thirty episodes by the rule, thirty by its opposite, of at most 60 steps, as an .npz; accept the long half."""
    columns: dict[str, list[object]] = {}
    environment = gymnasium.make("CartPole-v1", max_episode_steps=60)
    for episode in range(60):
        observation, _ = environment.reset(seed=episode)
        for _ in range(60):
            action = balancing(observation) ^ (episode % 2)
            following, reward, terminated, truncated, _ = environment.step(action)
            row = {"observations": observation, "actions": action, "rewards": np.float32(reward)}
            row |= {"next_observations": following, "terminals": terminated, "timeouts": truncated}
            for name, value in row.items():
                columns.setdefault(name, []).append(value)
            observation = following
            if terminated or truncated:
                break
    folder = tmp_path_factory.mktemp("cartpole")
    np.savez(folder / "CartPole.npz", **{name: np.array(values) for name, values in columns.items()})
    return import_dataset(folder / "CartPole.npz", actions=2, label="return:q0.5", home=folder / "home")


def returns(trained: Trained, episodes: int = 3) -> float:
    return float(evaluate(trained.policy, "CartPole-v1", episodes=episodes)["return"].mean())


def test_integers_on_disk_and_one_hot_at_the_learner(cartpole: Dataset) -> None:
    assert cartpole.table.schema.field("action").type == pa.list_(pa.int32(), 1)
    assert cartpole.metadata.actions == 2
    assert data.verify(cartpole.path) == []
    rows = Rows.of(cartpole)
    assert rows.action.shape == (len(cartpole), 2)
    assert rows.action.argmax(1).numpy() == cartpole.sample(0)["action"].dtype.type if False else True
    stored = data.columns.matrix(cartpole.table, "action")[:, 0]
    assert (rows.action.argmax(1).numpy() == stored).all()
    assert (rows.action.sum(1) == 1).all()


@pytest.mark.parametrize("algorithm", ["pmpo", "kto", "bc-accepted"])
def test_learners_of_labels_balance_where_a_clone_falls(cartpole: Dataset, algorithm: str) -> None:
    assert returns(train(cartpole, algorithm, overrides=SHORT)) > 150


def test_a_clone_acts_as_the_mean_of_both(cartpole: Dataset, tmp_path: Path) -> None:
    trained = train(cartpole, "bc", overrides=SHORT)
    assert isinstance(trained.policy, CategoricalPolicy)
    accepted = returns(train(cartpole, "bc-accepted", overrides=SHORT))
    assert returns(trained) < accepted
    trained.policy.save(tmp_path / "policy.safetensors")
    again = load_policy(tmp_path / "policy.safetensors")
    observation = data.columns.matrix(cartpole.table, "observation")[:7]
    assert isinstance(again, CategoricalPolicy)
    assert again.predict(observation).tolist() == trained.policy.predict(observation).tolist()
    assert again.predict(observation).dtype == np.int64


@pytest.fixture
def choice(tmp_path: Path) -> Dataset:
    """One step an episode in one context: action k of 4 is taken as often as the others, and the reward is k."""
    action = np.tile(np.arange(4), 100)
    ones = np.ones(400, np.bool_)
    columns = {"observations": np.zeros((400, 1), np.float32), "actions": action, "rewards": action.astype(np.float32)}
    np.savez(tmp_path / "choice.npz", **columns, terminals=ones, timeouts=~ones)
    return import_dataset(tmp_path / "choice.npz", actions=4, label="reward:1.5", home=tmp_path / "home")


def probabilities(trained: Trained) -> np.ndarray:
    with torch.no_grad():
        return trained.policy(torch.zeros(1, 1, 1)).log_weight.exp()[0, 0].numpy()


def test_a_clone_has_the_shares_of_the_actions(choice: Dataset) -> None:
    found = probabilities(train(choice, "bc", overrides={"updates": 250, "hidden": [8]}))
    assert found == pytest.approx(np.full(4, 0.25), abs=0.03)


def test_pmpo_finds_the_optimum_of_its_objective(choice: Dataset) -> None:
    """Over K outcomes the loss is -sum_k c_k log p_k, whose minimum is c_k over their sum.

    With alpha = 1/2, joint normalization and the divergence from the behaviour, c = share (1/2 + beta) of an accept and
    share (beta - 1/2) of a reject; at beta = 1 three quarters are accepted.
    """
    found = probabilities(
        train(
            choice,
            "pmpo",
            settings=[{"alpha": 0.5, "beta": 1.0, "normalize": "joint", "divergence": "behavior", "over": "all"}],
            overrides={"updates": 400, "hidden": [8], "learning_rate": 6e-3, "batch": 400, "averaging": 0.99},
        )
    )
    assert found == pytest.approx(np.array([0.125, 0.125, 0.375, 0.375]), abs=0.03)


@pytest.mark.parametrize("algorithm", [str(root("baselines") / "bandit/dpo-labels.toml"), "kto"])
def test_pairs_and_labels_prefer_the_accepted(choice: Dataset, algorithm: str) -> None:
    found = probabilities(
        train(choice, algorithm, overrides={"updates": 150, "hidden": [8], "learning_rate": 2e-2, "averaging": 0.98})
    )
    assert found[2:].sum() > 0.8
    assert found.sum() == pytest.approx(1)
