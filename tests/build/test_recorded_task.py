"""The task of imported episodes, and whose reference scores they get."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.foreign import as_d4rl, bounded, hdf5, minari_of
from helpers.imports import refused

from pmpo_offline import data
from pmpo_offline.build.read import import_dataset
from pmpo_offline.data import columns
from pmpo_offline.data.minari_metadata import ENVIRONMENTS
from pmpo_offline.declarations import catalog


@pytest.fixture
def home(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return home


refusal = partial(refused, import_dataset)


def test_episodes_of_the_official_environment(home: Path) -> None:
    """Recorded from Gymnasium, stored by Minari with the environment's own specification and spaces."""
    import gymnasium
    import minari
    from minari.data_collector import EpisodeBuffer

    env = gymnasium.make("Hopper-v5")
    rng = np.random.default_rng(0)
    buffers = []
    for seed in range(3):
        observations, actions, rewards, terminations, truncations = [env.reset(seed=seed)[0]], [], [], [], []
        while not (terminations and (terminations[-1] or truncations[-1])):
            actions.append(rng.uniform(-1, 1, 3).astype(np.float32))
            observation, reward, terminated, truncated, _ = env.step(actions[-1])
            observations.append(observation)
            rewards.append(float(reward))
            terminations.append(terminated)
            truncations.append(truncated)
        buffers.append(
            EpisodeBuffer(
                None, seed, None, np.stack(observations), np.stack(actions), rewards, terminations, truncations
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers("test/hopper-v0", buffers, env=env)
    dataset = import_dataset("minari:test/hopper-v0")
    assert (dataset.metadata.task, dataset.metadata.provenance.settings["environment"]) == (
        "mujoco/hopper",
        "Hopper-v5",
    )
    assert dataset.episodes is not None
    for index, buffer in enumerate(buffers):
        rows = np.flatnonzero(columns.vector(dataset.table, "episode") == index)
        observed = np.asarray(buffer.observations, np.float32)
        assert np.array_equal(columns.matrix(dataset.table, "observation")[rows], observed[:-1])
        assert np.array_equal(columns.matrix(dataset.episodes, "final_observation")[index], observed[-1])
        assert np.array_equal(columns.matrix(dataset.table, "action")[rows], buffer.actions)
        assert np.array_equal(columns.vector(dataset.table, "reward")[rows], np.asarray(buffer.rewards, np.float32))
        assert np.array_equal(columns.vector(dataset.table, "terminated")[rows], buffer.terminations)
    assert columns.vector(dataset.episodes, "seed").tolist() == [0, 1, 2]


DIMS = {"HalfCheetah-v5": (17, 6), "Hopper-v5": (11, 3), "Walker2d-v5": (17, 6)}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_environment_of_ours_is_our_task(home: Path, tmp_path: Path, environment: str) -> None:
    said = import_dataset(minari_of(tmp_path, environment, DIMS[environment])).metadata
    assert said.task == ENVIRONMENTS[environment]
    measured = catalog.references(said.task)
    assert (said.references and said.references.model_dump()) == (measured and data.References(**measured).model_dump())
    assert said.id == "minari/test/aligned-v0"


@pytest.mark.parametrize(
    ("environment", "spec"),
    [
        ("Hopper-v4", {}),
        ("Hopper-v2", {}),
        ("Hopper-v5", {"kwargs": {"healthy_reward": 0.0}}),
        ("Hopper-v5", {"additional_wrappers": [{"name": "X"}]}),
        ("Hopper-v5", {"max_episode_steps": 200}),
    ],
    ids=str,
)
def test_another_version_is_another_task(home: Path, tmp_path: Path, environment: str, spec: dict[str, Any]) -> None:
    name = minari_of(tmp_path, environment, (11, 3), **spec)
    line = refusal(name, task="mujoco/hopper")
    assert f"was recorded in {environment}" in line
    assert "which is not task mujoco/hopper: their scores cannot be mixed; leave task out" in line
    said = import_dataset(name).metadata
    assert (said.task, said.references) == (environment, None)


def test_scores_in_the_metadata_come_along(home: Path, tmp_path: Path) -> None:
    name = minari_of(tmp_path, "AdroitHandDoor-v1", metadata={"ref_min_score": -45.8, "ref_max_score": 2940.6})
    references = import_dataset(name).metadata.references
    assert references is not None
    assert (references.min, references.max, references.versions) == (-45.8, 2940.6, {})


def test_d4rls_hopper_is_not_ours(home: Path, tmp_path: Path) -> None:
    path = hdf5(tmp_path / "hopper_medium-v2.hdf5", as_d4rl(bounded([3, 2], 11, 3)))
    line = refusal(path, task="mujoco/hopper")
    assert "was recorded in d4rl/hopper-v2, which is not task mujoco/hopper" in line
    said = import_dataset(path).metadata
    assert (said.id, said.task, said.licence) == ("d4rl/hopper-medium-v2", "d4rl/hopper-v2", "CC-BY-4.0")
    assert said.references is not None
    assert (said.references.min, said.references.max) == (-20.272305, 3234.3)
    assert said.references.versions == {"d4rl": "v2"}


def test_a_task_that_is_given_must_fit(home: Path, tmp_path: Path) -> None:
    path = hdf5(tmp_path / "own.hdf5", as_d4rl(bounded([3, 2], 11, 3)))
    assert import_dataset(path, task="mujoco/hopper").metadata.task == "mujoco/hopper"
    assert "task mujoco/walker2d has 17 and 6: it is of another task" in refusal(path, task="mujoco/walker2d")
    assert "unknown task 'mujoco/hoper': did you mean mujoco/hopper" in refusal(path, task="mujoco/hoper")
    for name in ("Reach-v0", "reach:Reach-v0", "mine/Reach-v0"):
        assert f"leave task out, and score what is trained on the episodes with evaluate RUN --environment {name}" in (
            refusal(path, task=name)
        )
    assert "unknown task 'mujoco/hopper-v0': did you mean mujoco/hopper" in refusal(path, task="mujoco/hopper-v0")
    wild = hdf5(tmp_path / "wild.hdf5", as_d4rl(bounded([3], 11, 3, action=np.full((3, 3), 2, np.float32))))
    assert "actions reach 2, and those of task mujoco/hopper lie within -1 and 1" in refusal(wild, task="mujoco/hopper")
    with pytest.warns(UserWarning, match="actions reach 2; they are stored as they are"):
        import_dataset(wild)
    assert "candidates are drawn within -1 and 1, and its actions are not" in refusal(wild, label="q_rank")
