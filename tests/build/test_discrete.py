"""Imports of discrete actions: whole numbers from 0 of a known number, from every kind of source that has them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces
from helpers.aligned import experience
from helpers.foreign import as_d4rl, minari_set, npz
from helpers.robots import d3rlpy

from pmpo_offline import data
from pmpo_offline.build import import_dataset
from pmpo_offline.data import Dataset, Experience, columns
from pmpo_offline.data.exchange import export_dataset
from pmpo_offline.runtime.errors import UserError

LENGTHS = [3, 1, 4]
CHOSEN = np.array([0, 2, 1, 1, 0, 0, 2, 1], np.int64)


def chosen(dataset: Dataset) -> list[int]:
    assert data.verify(dataset.path) == []
    action = columns.matrix(dataset.table, "action")
    assert action.dtype == np.int32
    return action[:, 0].tolist()


def discrete(dtype: type = np.int64) -> Experience:
    return replace(experience(LENGTHS), action=CHOSEN.astype(dtype)[:, None])


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return npz(tmp_path / "set-v0.npz", as_d4rl(discrete()))


@pytest.mark.parametrize("form", ["hdf5", "arrow"])
def test_minari_says_how_many_there_are_and_where_they_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    source = minari_set(
        discrete(), form=form, act=lambda values: values[:, 0] + 5, action_space=spaces.Discrete(4, start=5)
    )
    dataset = import_dataset(source, home=tmp_path / "home")
    assert chosen(dataset) == CHOSEN.tolist()
    assert dataset.metadata.actions == 4


@pytest.mark.parametrize("flat", [True, False])
def test_files_of_arrays_need_to_be_told(tmp_path: Path, flat: bool) -> None:
    arrays = as_d4rl(discrete())
    if flat:
        arrays["actions"] = arrays["actions"][:, 0]
    dataset = import_dataset(npz(tmp_path / "set-v0.npz", arrays), actions=3, home=tmp_path / "home")
    assert chosen(dataset) == CHOSEN.tolist()
    assert dataset.metadata.actions == 3


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_whole_floats_in_one_number_a_row_are_actions_too(tmp_path: Path, kind: type) -> None:
    path = npz(tmp_path / "set-v0.npz", as_d4rl(discrete()) | {"actions": CHOSEN.astype(kind)})
    assert chosen(import_dataset(path, actions=3, home=tmp_path / "home")) == CHOSEN.tolist()
    with pytest.warns(UserWarning, match="taken as continuous: if they are choices, add --actions 3"):
        assert import_dataset(path, id="test/numbers-v0", home=tmp_path / "home").metadata.actions is None


@pytest.mark.parametrize("kind", [np.float32, np.int64])
def test_one_hot_rows_are_numbered(tmp_path: Path, kind: type) -> None:
    path = npz(tmp_path / "set-v0.npz", as_d4rl(discrete()) | {"actions": np.eye(3, dtype=kind)[CHOSEN]})
    assert chosen(import_dataset(path, actions=3, home=tmp_path / "home")) == CHOSEN.tolist()
    if kind is np.float32:
        with pytest.warns(UserWarning, match="one-hot rows of 3 and are taken as continuous"):
            assert import_dataset(path, id="test/numbers-v0", home=tmp_path / "home").metadata.actions is None


def test_a_buffer_as_d3rlpy_dumps_it_is_read(tmp_path: Path) -> None:
    found = discrete()
    terminal = replace(found, terminated=np.ones_like(found.terminated))  # else its form lacks the last observation
    buffer = d3rlpy(tmp_path / "buffer.h5", terminal)
    dataset = import_dataset(buffer, actions=3, home=tmp_path / "home")
    assert chosen(dataset) == CHOSEN.tolist()


WRITERS = ["minari", "d4rl", "d3rlpy", "robomimic", "lerobot", "parquet", "huggingface"]
FILES = {"d4rl": "set-v0.hdf5", "d3rlpy": "set-v0.h5", "robomimic": "set-v0.hdf5"}


@pytest.mark.parametrize("to", WRITERS)
def test_an_export_comes_back(tmp_path: Path, written: Path, to: str) -> None:
    dataset = import_dataset(written, actions=5, home=tmp_path / "home")
    folder = export_dataset(dataset, to, tmp_path / "out") / FILES.get(to, "")
    again = import_dataset(folder, home=tmp_path / "other")
    assert again.fingerprint == dataset.fingerprint
    assert again.metadata.actions == 5
    relabelled = import_dataset(folder, label="reward", home=tmp_path / "other")
    assert relabelled.metadata.actions == 5
    assert chosen(relabelled) == CHOSEN.tolist()


def test_both_forms_hold_the_same_actions(tmp_path: Path, written: Path) -> None:
    arrow, hdf5 = (
        import_dataset(written, actions=3, format=form, home=tmp_path / form)
        for form in ("arrow", "hdf5")  # type: ignore[arg-type]
    )
    assert hdf5.fingerprint == arrow.fingerprint
    assert chosen(hdf5) == CHOSEN.tolist()


def test_minari_opens_what_is_stored_and_exported(
    tmp_path: Path, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import minari

    dataset = import_dataset(written, actions=4, format="hdf5", home=tmp_path / "home")
    for place, name in ((dataset.path.parents[1], "d4rl/set-v0"), (tmp_path / "out", "d4rl/set-v0")):
        if place == tmp_path / "out":
            export_dataset(dataset, "minari", place)
        monkeypatch.setenv("MINARI_DATASETS_PATH", str(place))
        opened = minari.load_dataset(name)
        assert opened.action_space == spaces.Discrete(4)
        found = [episode.actions for episode in opened]
        assert np.concatenate(found).tolist() == CHOSEN.tolist()
        assert all(opened.action_space.contains(action) for actions in found for action in actions)


def test_what_is_not_known_or_contradicts_is_refused(tmp_path: Path, written: Path) -> None:
    home = tmp_path / "home"

    def refusal(**settings: object) -> str:
        with pytest.raises(UserError) as refused:
            import_dataset(written, home=home, **settings)  # type: ignore[arg-type]
        return str(refused.value)

    assert "say how many there are, with actions 3" in refusal()
    assert "an action is 2, and there are 2" in refusal(actions=2)
    assert "actions 1: choose a number between 2" in refusal(actions=1)
    assert "task mujoco/hopper" in refusal(actions=3, task="mujoco/hopper")
    assert "candidates are not drawn from discrete actions" in refusal(actions=3, label="q_rank")
    negative = as_d4rl(replace(discrete(), action=discrete().action - 1))
    with pytest.raises(UserError, match="counted from 0, and one is -1"):
        import_dataset(npz(tmp_path / "negative.npz", negative), actions=3, home=home)
    continuous = npz(tmp_path / "continuous.npz", as_d4rl(experience(LENGTHS)))
    with pytest.raises(UserError, match="not whole numbers"):
        import_dataset(continuous, actions=3, home=home)
    dataset = import_dataset(written, actions=3, home=home)
    with pytest.raises(UserError, match=r"has discrete actions: choose .*, not ogbench"):
        export_dataset(dataset, "ogbench", tmp_path / "out")


def test_an_action_beyond_their_number_is_damage(tmp_path: Path, written: Path) -> None:
    dataset = import_dataset(written, actions=3, home=tmp_path / "home")
    tables = dataset.tables
    fewer = dataset.metadata.model_copy(update={"actions": 2})
    assert data.problems(fewer, tables) == ["transitions.action: reaches from 0 to 2, and there are 2"]
    none = dataset.metadata.model_copy(update={"actions": None})
    assert data.problems(none, tables) == ["transitions.action: 1 int32 a step, dataset.json: None actions"]
