"""What `export --to d3rlpy` writes, read by d3rlpy itself: every row in its place, and learners that learn from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from d3rlpy.constants import ActionSpace
from d3rlpy.dataset import Episode, ReplayBuffer, load
from helpers.aligned import LENGTHS, assert_aligned, expected, experience, stored
from helpers.foreign import as_d4rl, npz
from helpers.labelled import saved

from baselines.peers.d3rlpy_train import opened, train
from pmpo_offline import data
from pmpo_offline import training as ours
from pmpo_offline.build import import_dataset
from pmpo_offline.data.exchange import export_dataset


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
def test_every_row_is_where_it_belongs(tmp_path: Path, lengths: list[int]) -> None:
    """Episodes are cut exactly; of a truncated one d3rlpy never draws the last step, whose successor it cannot hold."""
    path = exported(stored(tmp_path, lengths), tmp_path / "out")
    with path.open("rb") as file:
        episodes = load(Episode, file)
    assert [len(episode) for episode in episodes] == lengths
    assert [bool(episode.terminated) for episode in episodes] == [e % 3 == 0 for e in range(len(lengths))]
    found = {
        "observation": np.concatenate([episode.observations for episode in episodes]),
        "action": np.concatenate([episode.actions for episode in episodes]),
        "reward": np.concatenate([episode.rewards for episode in episodes])[:, 0],
    }
    assert_aligned(found, lengths)
    drawable = sum(length - (e % 3 != 0) for e, length in enumerate(lengths))
    assert sum(episode.transition_count for episode in episodes) == drawable


def test_drawn_transitions_are_aligned(tmp_path: Path) -> None:
    """Terminated episodes end in zeros, as d3rlpy has it; everything else is as it was recorded."""
    lengths = LENGTHS["many episodes"]
    buffer: ReplayBuffer = opened(exported(stored(tmp_path, lengths), tmp_path / "out"))
    batch = buffer.sample_transition_batch(2000)
    episode, step = batch.observations[:, 0].astype(int), batch.observations[:, 1].astype(int)
    rows = np.cumsum([0, *lengths])[episode] + step
    terminal = batch.terminals[:, 0] > 0
    due = expected(lengths)
    assert (batch.actions == due["action"][rows]).all()
    assert (batch.rewards[:, 0] == due["reward"][rows]).all()
    assert (terminal == due["terminated"][rows]).all()
    assert (batch.next_observations[~terminal] == due["next_observation"][rows[~terminal]]).all()
    assert (batch.next_observations[terminal] == 0).all()


def test_discrete_actions_are_d3rlpys_and_come_back_from_its_own_file(tmp_path: Path) -> None:
    """Its own file has the actions and not their number."""
    chosen = np.array([0, 2, 1, 1, 0, 0, 2, 1])
    written = replace(experience([3, 1, 4]), action=chosen[:, None], terminated=np.ones(3, np.bool_))
    dataset = import_dataset(npz(tmp_path / "set-v0.npz", as_d4rl(written)), actions=3, home=tmp_path / "home")
    buffer: ReplayBuffer = opened(exported(dataset, tmp_path / "out"))
    assert buffer.dataset_info.action_space is ActionSpace.DISCRETE
    assert buffer.dataset_info.action_size == 3
    assert np.concatenate([episode.actions for episode in buffer.episodes])[:, 0].tolist() == chosen.tolist()
    with (tmp_path / "again.h5").open("w+b") as file:
        buffer.dump(file)
    again = import_dataset(tmp_path / "again.h5", actions=3, home=tmp_path / "home")
    assert data.columns.matrix(again.table, "action")[:, 0].tolist() == chosen.tolist()


def exported(dataset: data.Dataset, folder: Path) -> Path:
    """Return the file that the export wrote."""
    return next(export_dataset(dataset, "d3rlpy", folder).glob("*.h5"))


@pytest.fixture(scope="module")
def steered(tmp_path_factory: pytest.TempPathFactory) -> data.Dataset:
    """Episodes whose actions are a known function of the observation."""
    rng = np.random.default_rng(0)
    count, length = 20, 100
    observation = rng.normal(size=(count * length, 3)).astype(np.float32)
    recorded = data.Experience(
        observation=observation,
        action=steering(observation),
        reward=observation[:, 0],
        length=np.full(count, length),
        success=np.zeros(count, bool),
        terminated=np.zeros(count, bool),
        final_observation=rng.normal(size=(count, 3)).astype(np.float32),
        behavior=np.array(["known"] * count),
        seed=np.arange(count),
    )
    transitions, episodes = recorded.tables()
    about = {"id": "test/steered-v0", "task": "dm_control/cheetah-run"}
    return saved(tmp_path_factory.mktemp("home") / about["id"], transitions, episodes, "return", **about)


def steering(observation: np.ndarray) -> np.ndarray:
    """Return the actions (n, 2) at observations (n, 3)."""
    return (0.6 * np.tanh(observation[:, :2] + observation[:, 2:])).astype(np.float32)


def test_both_clone_the_same_behaviour(steered: data.Dataset, tmp_path: Path) -> None:
    """d3rlpy's BC and ours, trained on the same rows, both act as the recorded one does where they have never been."""
    seen = np.random.default_rng(1).normal(size=(500, 3)).astype(np.float32)
    theirs = train(opened(exported(steered, tmp_path / "out")), "bc", 600, seed=0)
    trained = ours.train(steered, "bc", overrides={"updates": 600, "averaging": 0.99}, device="cpu")
    with torch.no_grad():
        mine = trained.policy(torch.from_numpy(seen)[None]).mode()[0].numpy()
    assert np.abs(theirs.predict(seen) - steering(seen)).mean() < 0.03
    assert np.abs(mine - steering(seen)).mean() < 0.03


@pytest.mark.parametrize("learner", ["bc", "td3-bc"])
def test_a_policy_comes_home_as_it_is(steered: data.Dataset, tmp_path: Path, learner: str) -> None:
    """What `save_policy` writes acts as d3rlpy does, scaling included, with nothing but torch."""
    seen = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
    trained = train(opened(exported(steered, tmp_path / "out")), learner, 20, seed=0)
    trained.save_policy(str(tmp_path / "policy.pt"))
    with torch.no_grad():
        action = torch.jit.load(str(tmp_path / "policy.pt"))(torch.from_numpy(seen)).numpy()
    assert np.allclose(action, trained.predict(seen), atol=1e-6)
