"""Stock Minari does with our directories what it does with its own: checks, re-storing, environments, combining."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.foreign import assert_same, read
from helpers.labelled import labelled

from pmpo_offline import data
from pmpo_offline.data import columns
from pmpo_offline.data.exchange import export_dataset
from pmpo_offline.data.minari_metadata import ENVIRONMENTS
from pmpo_offline.data.schema import FileInfo
from pmpo_offline.runtime.hashing import hash_file

HOPPER = "test/hopper-v0"
"""Its episodes are of Gymnasium's Hopper-v5."""


@pytest.fixture(autouse=True)
def minari_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


@pytest.fixture(autouse=True)
def few_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of authors and descriptions that Minari would like
        yield


def hopper(lengths: list[int], **changes: Any) -> tuple[data.Metadata, dict[str, Any]]:
    rng = np.random.default_rng(len(lengths))
    n, e = sum(lengths), len(lengths)
    written = data.Experience(
        observation=rng.normal(size=(n, 11)).astype(np.float32),
        action=rng.uniform(-1, 1, (n, 3)).astype(np.float32),
        reward=rng.normal(size=n).astype(np.float32),
        length=np.array(lengths),
        success=np.arange(e) % 2 == 0,
        terminated=np.arange(e) % 3 == 0,
        final_observation=rng.normal(size=(e, 11)).astype(np.float32),
        behavior=np.array(["expert"] * e),
        seed=np.arange(e),
    )
    return labelled(*written.tables(), "reward:q0.5", id=HOPPER, **{"task": "mujoco/hopper", **changes})


def exported(tmp_path: Path, name: str, lengths: list[int], **changes: Any) -> Any:
    """The dataset of this id, as Minari opens it."""
    import minari

    metadata, tables = hopper(lengths, **changes)
    data.write(tmp_path / "home" / name, metadata.model_copy(update={"id": name}), tables)
    export_dataset(data.open_dataset(tmp_path / "home" / name), "minari", tmp_path / "minari")
    return minari.load_dataset(name)


def assert_integrity(dataset: Any, indices: list[int]) -> None:
    """What Minari's own tests check of every data set (`check_data_integrity`)."""
    assert len(dataset) == len(indices)
    assert list(dataset.episode_indices) == indices
    for episode in dataset.iterate_episodes():
        steps = len(episode.rewards)
        assert len(episode.observations) == steps + 1
        assert len(episode.actions) == len(episode.terminations) == len(episode.truncations) == steps
        assert all(dataset.observation_space.contains(observation) for observation in episode.observations)
        assert all(dataset.action_space.contains(action) for action in episode.actions)
        assert not episode.terminations[:-1].any()
        assert episode.terminations[-1] != episode.truncations[-1]
        for values in episode.infos.values():
            assert len(values) == steps + 1
    sizes = [metadata["total_steps"] for metadata in dataset.storage.get_episode_metadata(indices)]
    assert sum(sizes) == dataset.total_steps


def info_at(infos: dict[str, Any], step: int) -> dict[str, Any]:
    """As `get_info_at_step_index` of Minari's tests, with which it collects episodes again."""
    return {name: values[step] for name, values in infos.items()}


def test_infos_are_those_of_the_reset_and_of_every_step(tmp_path: Path) -> None:
    dataset = exported(tmp_path, HOPPER, [3, 1, 4])
    table = data.open_dataset(tmp_path / "home" / HOPPER).table
    labels, scores = columns.labels(table), columns.vector(table, "score")
    assert_integrity(dataset, [0, 1, 2])
    row = 0
    for episode in dataset:
        reset = info_at(episode.infos, 0)
        assert reset["label"] == 0
        assert np.isnan(reset["score"])
        for step in range(len(episode.rewards)):
            info = info_at(episode.infos, step + 1)
            assert (info["label"], info["score"]) == (labels[row], scores[row])
            row += 1


def test_minari_stores_it_again_and_nothing_changes(tmp_path: Path, minari_home: Path) -> None:
    """By its own buffers, which step by step take an observation and an info more than actions."""
    import minari
    from minari.data_collector import EpisodeBuffer

    dataset = exported(tmp_path, HOPPER, [3, 1, 4])
    table = data.open_dataset(tmp_path / "home" / HOPPER).table
    buffers = [
        EpisodeBuffer(
            id=index,
            observations=episode.observations,
            actions=episode.actions,
            rewards=list(episode.rewards),
            terminations=list(episode.terminations),
            truncations=list(episode.truncations),
            infos=episode.infos,
        )
        for index, episode in enumerate(dataset)
    ]
    for form in ("hdf5", "arrow"):
        again = minari.create_dataset_from_buffers(
            f"test/{form}-v0",
            buffers,
            env=dataset.env_spec,
            observation_space=dataset.observation_space,
            action_space=dataset.action_space,
            data_format=form,
        )
        recorded = read(f"minari:test/{form}-v0")
        assert_same(recorded.experience, read(minari_home / HOPPER).experience)
        assert np.array_equal(recorded.feedback, columns.labels(table))
        if form == "arrow":  # whose infos of single numbers Minari 0.5.4 writes and cannot read
            continue
        for one, other in zip(dataset, again, strict=True):
            assert np.array_equal(one.infos["label"], other.infos["label"])
            assert np.array_equal(one.infos["score"], other.infos["score"], equal_nan=True)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_environment_of_the_metadata_is_the_official_one(environment: str) -> None:
    """Its specification, and the spaces that are written without making it."""
    import gymnasium
    from minari.serialization import deserialize_space

    from pmpo_offline.data.minari_metadata import minari_metadata

    official = gymnasium.make(environment)
    observation, action = (space.shape[0] for space in (official.observation_space, official.action_space))
    metadata, tables = hopper([2], task=ENVIRONMENTS[environment])
    steps = tables["transitions"]
    for name, width in (("observation", observation), ("action", action)):
        values = np.zeros((2, width), np.float32)
        steps = steps.drop_columns(name).append_column(name, columns.list_array(values))
    said = minari_metadata(metadata, steps)
    assert gymnasium.envs.registration.EnvSpec.from_json(said["env_spec"]) == gymnasium.spec(environment)
    assert deserialize_space(said["observation_space"]) == official.observation_space
    assert deserialize_space(said["action_space"]) == official.action_space


def test_its_environment_is_recovered_and_plays(tmp_path: Path) -> None:
    env = exported(tmp_path, HOPPER, [3]).recover_environment()
    assert (env.spec.id, env.spec.max_episode_steps) == ("Hopper-v5", 1000)
    env.reset(seed=0)
    env.step(env.action_space.sample())


def test_it_combines_with_a_set_of_minaris_own(tmp_path: Path) -> None:
    import gymnasium
    import minari
    from minari.data_collector import EpisodeBuffer

    ours = exported(tmp_path, HOPPER, [3, 1])
    more = exported(tmp_path, "test/more-v0", [2, 5])
    env = gymnasium.make("Hopper-v5")
    seen, actions = [env.reset(seed=0)[0]], [np.zeros(3, np.float32)] * 3
    seen += [env.step(action)[0] for action in actions]
    ends = {"terminations": [False] * 3, "truncations": [False, False, True]}
    buffer = EpisodeBuffer(observations=seen, actions=actions, rewards=[0.0] * 3, **ends)
    theirs = minari.create_dataset_from_buffers("test/theirs-v0", [buffer], env=env)
    combined = minari.combine_datasets([ours, more], "test/combined-v0")
    assert_integrity(combined, [0, 1, 2, 3])
    assert combined.spec.combined_datasets == [HOPPER, "test/more-v0"]
    assert [len(episode.rewards) for episode in combined] == [3, 1, 2, 5]
    with_theirs = minari.combine_datasets([theirs, ours], "test/both-v0")
    assert (with_theirs.total_episodes, with_theirs.env_spec.id) == (3, "Hopper-v5")
    assert with_theirs.total_steps == 7


def test_split_filter_and_sample(tmp_path: Path) -> None:
    import minari

    dataset = exported(tmp_path, HOPPER, [3, 1, 4, 2, 2])
    first, second = minari.split_dataset(dataset, sizes=[2, 3], seed=0)
    assert sorted([*first.episode_indices, *second.episode_indices]) == [0, 1, 2, 3, 4]
    assert_integrity(first, list(first.episode_indices))
    ended = dataset.filter_episodes(lambda episode: bool(episode.terminations[-1]))
    assert_integrity(ended, [0, 3])
    accepted = dataset.filter_episodes(lambda episode: bool((episode.infos["label"][1:] > 0).any()))
    assert 0 < len(accepted) <= 5
    assert len(list(dataset.sample_episodes(2))) == 2


def test_bounds_are_those_that_are_known(tmp_path: Path) -> None:
    def space(name: str, **changes: Any) -> Any:
        return exported(tmp_path, name, [2, 2], task="arm", **changes).action_space

    within = space("test/within-v0")
    assert (within.low.tolist(), within.high.tolist()) == ([-1.0] * 3, [1.0] * 3)
    recorded = data.Provenance(settings={"action_low_high": [[-2.0, None, -1.0], [2.0, 3.0, None]]})
    kept = space("test/kept-v0", provenance=recorded)
    assert (kept.low.tolist(), kept.high.tolist()) == ([-2.0, -np.inf, -1.0], [2.0, 3.0, np.inf])


def test_the_hdf5_form_written_before_infos_of_resets_is_read(tmp_path: Path) -> None:
    """Its infos have a row a step; sizes and hashes are those of that file."""
    import h5py

    from pmpo_offline.data import hdf5

    metadata, tables = hopper([3, 1, 4])
    home = tmp_path / "home" / HOPPER
    written = data.write(home, metadata, tables, form="hdf5")
    with h5py.File(home / "data/main_data.hdf5", "a") as file:
        for episode in file.values():
            for name in ("score", "label"):
                values = episode[f"infos/{name}"][1:]
                del episode[f"infos/{name}"]
                episode[f"infos/{name}"] = values
    info = FileInfo(sha256=hash_file(home / "data/main_data.hdf5"), bytes=(home / "data/main_data.hdf5").stat().st_size)
    files = {**written.files, "data/main_data.hdf5": info}
    found = hdf5.read(home, written.model_copy(update={"files": files}))
    assert found["transitions"].equals(tables["transitions"])
