"""Minari data sets, written by Minari itself: every value of every step, spaces of every kind, and what is refused."""

from __future__ import annotations

import json
import os
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from gymnasium import spaces
from helpers.aligned import experience
from helpers.foreign import as_d4rl, assert_same, episodes, found, minari_set, read
from helpers.foreign import hdf5 as write_hdf5
from helpers.forked import Forked

from pmpo_offline import data
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.hashing import hash_file

LENGTHS = {
    "single steps": [1, 1, 1],
    "mixed": [3, 1, 4, 1, 12],
    "many episodes": [1 + index % 3 for index in range(110)],
}


@pytest.fixture(autouse=True)
def minari_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def refusal(name: str | Path) -> str:
    with pytest.raises(UserError) as caught:
        read(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
def test_every_step_is_where_it_was(lengths: list[int]) -> None:
    written = experience(lengths)
    recorded = read(minari_set(written))
    assert_same(recorded.experience, written)
    assert np.array_equal(recorded.experience.seed, written.seed)


@pytest.mark.parametrize("form", ["arrow", "parquet"])
@pytest.mark.parametrize("lengths", [[3, 1, 4, 1, 12], [2, 40_000, 1]], ids=["mixed", "long"])
def test_arrow_and_parquet_too_beyond_what_minari_reads_right(form: str, lengths: list[int]) -> None:
    written = experience(lengths)
    assert_same(read(minari_set(written, form=form)).experience, written)


def test_a_folder_serves_as_well_as_an_id(minari_home: Path) -> None:
    written = experience([3, 1])
    minari_set(written, "deep/er/set-v3")
    folder = minari_home / "deep/er/set-v3"
    for path in (folder, folder / "data"):
        assert found(path).name == "deep/er/set-v3"
        assert_same(read(path).experience, written)
    hashes = found(folder).hashes()
    assert hashes == {f"{name}": hash_file(folder / "data" / name) for name in ("main_data.hdf5", "metadata.json")}


@pytest.mark.parametrize("form", ["hdf5", "arrow"])
def test_spaces_are_flattened_as_gymnasium_does(form: str) -> None:
    space = spaces.Dict(
        {
            "state": spaces.Box(-np.inf, np.inf, (3,), np.float64),
            "goal": spaces.Tuple([spaces.Box(-1, 1, (2, 2), np.float32), spaces.MultiBinary(3)]),
            "mode": spaces.Discrete(4, start=-1),
            "gears": spaces.MultiDiscrete([2, 3]),
        }
    )
    space.seed(0)
    written = experience([3, 1, 4])
    drawn: list[Any] = []

    def observe(values: np.ndarray) -> dict[str, Any]:
        rows = [space.sample() for _ in values]
        drawn.extend(rows)
        return {
            "state": np.stack([row["state"] for row in rows]),
            "goal": tuple(np.stack([row["goal"][part] for row in rows]) for part in (0, 1)),
            "mode": np.array([row["mode"] for row in rows]),
            "gears": np.stack([row["gears"] for row in rows]),
        }

    actions = spaces.Dict({"arm": spaces.Box(0, 500, (1,), np.float32), "hand": spaces.Box(0, 500, (1,), np.float32)})
    name = minari_set(
        written,
        form=form,
        observe=observe,
        act=lambda values: {"arm": values[:, :1], "hand": values[:, 1:]},
        observation_space=space,
        action_space=actions,
    )
    recorded = read(name)
    flat = iter(np.stack([spaces.flatten(space, row) for row in drawn]).astype(np.float32))
    expected = [np.stack([next(flat) for _ in range(length + 1)]) for length in (3, 1, 4)]
    for (_, observed), wanted in zip(episodes(recorded.experience), expected, strict=True):
        assert np.array_equal(observed, wanted)
    assert np.array_equal(recorded.experience.action, written.action)
    assert recorded.notes["action_low_high"] == [[0.0, 0.0], [500.0, 500.0]]


@pytest.mark.parametrize(
    ("space", "acts", "message"),
    [
        (spaces.Box(0, 255, (64, 48, 3), np.uint8), False, "is of images"),
        (
            spaces.Dict({"camera": spaces.Box(0, 255, (8, 8), np.uint8)}),
            False,
            "observation_space['camera'] is of images",
        ),
        (spaces.Dict({"mission": spaces.Text(8)}), False, "observation_space['mission'] is Text"),
        (spaces.Tuple([spaces.Box(0, 1, (0,))]), False, "has no numbers"),
        (spaces.Tuple([spaces.Discrete(5)]), True, "action_space[0] is Discrete(5): actions can be imported of Boxes"),
        (spaces.MultiBinary(2), True, "action_space is MultiBinary(2)"),
        (spaces.MultiDiscrete([2, 2]), True, "action_space is MultiDiscrete([2 2])"),
    ],
    ids=str,
)
def test_spaces_that_are_no_numbers_are_refused(minari_home: Path, space: Any, acts: bool, message: str) -> None:
    from minari.serialization import serialize_space

    minari_set(experience([2]))
    key = "action_space" if acts else "observation_space"
    edit_metadata(minari_home, **{key: serialize_space(space)})
    assert message in refusal("minari:test/aligned-v0")


def edit_metadata(minari_home: Path, **changes: Any) -> None:
    path = minari_home / "test/aligned-v0/data/metadata.json"
    said = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in said.items() if value is not None}))


@pytest.mark.parametrize("form", ["hdf5", "arrow"])
def test_success_is_an_info_of_any_step_or_an_attribute(minari_home: Path, form: str) -> None:
    written = experience([3, 1, 4])

    def infos(index: int, length: int) -> dict[str, np.ndarray]:
        return {"success": np.arange(length + 1) == (1 if index == 2 else 99)}

    recorded = read(minari_set(written, form=form, infos=infos))
    assert recorded.experience.success.tolist() == [False, False, True]
    assert recorded.notes["success"] is True
    silent = read(minari_set(written, "test/silent-v0", form))
    assert (silent.notes["success"], silent.experience.success.any()) == (False, False)
    import minari

    minari.load_dataset("test/silent-v0").storage.update_episode_metadata(
        [{"success": index == 0} for index in range(3)]
    )
    assert read("minari:test/silent-v0").experience.success.tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("said", "right"),
    [
        (("no", "yes", "False"), [False, True, False]),
        ((0.0, 1.0, np.int64(1)), [False, True, True]),
        ((np.nan, np.nan, np.nan), None),
        ((True, np.nan, False), None),
    ],
)
def test_success_of_an_episode_may_be_a_word_or_unknown(minari_home: Path, said: Any, right: list[bool] | None) -> None:
    import minari

    written = experience([3, 1, 4])
    minari_set(written)
    storage = minari.load_dataset("test/aligned-v0").storage
    storage.update_episode_metadata([{"success": value} for value in said])
    recorded = read("minari:test/aligned-v0")
    assert recorded.notes["success"] is (right is not None)
    if right is not None:
        assert recorded.experience.success.tolist() == right
    storage.update_episode_metadata([{"success": 0.5} for _ in said])
    assert "episode_0: success: expected true or false, found 0.5" in refusal("minari:test/aligned-v0")


def test_infos_that_say_nothing_leave_success_unknown(minari_home: Path) -> None:
    recorded = read(minari_set(experience([3, 1]), infos=lambda _, length: {"success": np.full(length + 1, np.nan)}))
    assert (recorded.notes["success"], recorded.experience.success.any()) == (False, False)


@pytest.mark.parametrize("form", ["hdf5", "arrow"])
def test_success_in_the_info_of_a_reset_is_none(form: str) -> None:
    def infos(index: int, length: int) -> dict[str, np.ndarray]:
        return {"success": np.arange(length + 1) == (length if index == 0 else 0 if index == 1 else 99)}

    recorded = read(minari_set(experience([4, 1, 6, 3]), form=form, infos=infos))
    assert recorded.experience.success.tolist() == [True, False, False, False]

    def renamed(index: int, length: int) -> dict[str, np.ndarray]:
        return {"is_success": infos(index, length)["success"]}

    other = read(minari_set(experience([4, 1, 6, 3]), "test/other-v0", form, infos=renamed))
    assert other.experience.success.tolist() == [True, False, False, False]
    contradicting = minari_set(experience([4]), "test/both-v0", form, infos=lambda i, n: infos(0, n) | renamed(1, n))
    assert "infos success and is_success contradict each other" in refusal(contradicting)


@pytest.mark.parametrize("to", ["minari", "d4rl"])
def test_unknown_success_stays_unknown_through_an_export(tmp_path: Path, to: str) -> None:
    """Around twice: what a source does not say is nothing that its export says."""
    from pmpo_offline.build.read import import_dataset
    from pmpo_offline.data.exchange import export_dataset

    arrays = as_d4rl(experience([3, 1, 4]))
    arrays["actions"] = arrays["actions"] * 0
    path = write_hdf5(tmp_path / "set.hdf5", arrays)
    for turn in range(2):
        dataset = import_dataset(path, id=f"test/turn{turn}-v0", home=tmp_path / "home")
        assert dataset.metadata.provenance.settings["success"] is False
        folder = export_dataset(dataset, to, tmp_path / f"out{turn}")
        path = folder if to == "minari" else next(folder.glob("*.hdf5"))
        assert read(path).notes["success"] is False
    with pytest.raises(UserError, match="does not say which episodes succeeded"):
        import_dataset(path, label="success", home=tmp_path / "home")


def test_what_the_metadata_say() -> None:
    import minari

    name = minari_set(experience([2, 2]), "mujoco/hopper/tiny-v0", author={"B", "A"}, algorithm_name="SAC")
    assert found(name).references is None
    scores = {"ref_min_score": -1.5, "ref_max_score": 20.0}
    minari.load_dataset("mujoco/hopper/tiny-v0").storage.update_metadata(scores)
    source = found(name)
    assert (source.format, source.name, source.author) == ("minari", "mujoco/hopper/tiny-v0", "A, B")
    assert source.references is not None
    assert (source.references.min, source.references.max) == (-1.5, 20.0)
    assert source.environment is None
    assert source.read().experience.behavior.tolist() == ["SAC", "SAC"]


def test_an_environment_is_read_and_never_made(minari_home: Path) -> None:
    minari_set(experience([2]))
    spec = {"id": "Evil-v0", "entry_point": "no_such_module:Env", "kwargs": {}, "additional_wrappers": []}
    edit_metadata(minari_home, env_spec=json.dumps(spec | {"max_episode_steps": 7}))
    source = found("minari:test/aligned-v0")
    assert source.environment is not None
    assert (source.environment.id, source.environment.plain, source.environment.horizon) == ("Evil-v0", True, 7)
    edit_metadata(minari_home, env_spec=json.dumps(spec | {"kwargs": {"gravity": 0}}))
    changed = found("minari:test/aligned-v0").environment
    assert changed is not None
    assert not changed.plain
    assert len(read("minari:test/aligned-v0").experience.reward) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hopper", "no Minari id: write minari:namespace/name-vN"),
        ("", "no Minari id"),
        ("mujoco/hopper", "no Minari id"),
        ("mujoco/hopper/medium-v", "no Minari id"),
        ("../../etc/passwd-v0", "no Minari id"),
        ("/etc/passwd-v0", "no Minari id"),
        ("a//b-v0", "no Minari id"),
        ("a/b-v0\n", "no Minari id"),
        ("hf://someone/door-v0", "no Minari id"),
    ],
    ids=repr,
)
def test_malformed_ids(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        found(f"minari:{name}")


def test_an_id_that_is_not_here_while_offline(minari_home: Path, forkserver: BaseContext) -> None:
    """In a process of its own, forked before any test: the hub's client looks once whether it may use the network."""
    code = "import sys; from helpers.foreign import found; found(sys.argv[1])"
    _, errors = Forked(forkserver, code, "minari:mujoco/hopper/medium-v0").communicate()
    *_, last = errors.splitlines()
    assert f"minari:mujoco/hopper/medium-v0 is not in {minari_home} and the hub cannot be reached" in last
    assert "run minari download mujoco/hopper/medium-v0 where there is a network" in last
    assert not minari_home.exists() or not any(minari_home.rglob("*.hdf5"))


@pytest.fixture
def hdf5(minari_home: Path) -> Path:
    minari_set(experience([3, 1, 4]))
    return minari_home / "test/aligned-v0/data/main_data.hdf5"


def replace(path: Path, name: str, values: Any) -> None:
    with h5py.File(path, "a") as file:
        del file[name]
        if values is not None:
            file[name] = values


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("episode_1", None, "lacks episode_1: it is incomplete"),
        ("episode_1/rewards", None, "episode_1: rewards is missing"),
        ("episode_1/observations", None, "episode_1: observations is missing"),
        ("episode_1/observations", np.array(0.0), "episode_1: observations has elements of shape ()"),
        ("episode_2/observations", np.zeros((4, 3)), "episode_2 has 4 observations, 4 actions and 4 rewards"),
        ("episode_2/actions", np.zeros((3, 2)), "episode_2 has 5 observations, 3 actions and 4 rewards"),
        (
            "episode_2/actions",
            np.zeros((4, 3)),
            "episode_2: actions has elements of shape (3,), and its space says (2,)",
        ),
        (
            "episode_0/rewards",
            np.array([0, np.nan, 1]),
            "episode_0: rewards holds NaN or infinite values, first in row 1",
        ),
        ("episode_0/observations", np.full((4, 3), np.inf), "episode_0: observations holds NaN or infinite values"),
        ("episode_0/observations", np.full((4, 3), 1e300), "episode_0: observations holds NaN or infinite values"),
        (
            "episode_0/terminations",
            np.array([0, 1, 0]),
            "episode_0: terminations ends in step 1, and the episode has 3",
        ),
        ("episode_0/terminations", np.array([0, 1]), "episode_0: terminations has 2 of 3 flags"),
        (
            "episode_2/truncations",
            np.array([0, 1, 0, 0]),
            "episode_2: truncations ends in step 1, and the episode has 4",
        ),
        ("episode_0/rewards", np.array(["a", "b", "c"], "S1"), "rewards: expected numbers, found |S1"),
    ],
    ids=str,
)
def test_damaged_content_is_named(hdf5: Path, name: str, values: Any, message: str) -> None:
    replace(hdf5, name, values)
    assert message in refusal("minari:test/aligned-v0")


def test_actions_outside_their_own_space_are_named() -> None:
    written = experience([3, 2])
    space = spaces.Box(0, 1.5, (2,), np.float32)
    assert "episode_0: actions: row 2 is outside the action space" in refusal(minari_set(written, action_space=space))
    within = minari_set(written, "test/within-v0", action_space=spaces.Box(0.5, 2.5, (2,), np.float32))
    assert_same(read(within).experience, written)  # the bounds themselves are inside


def test_truncated_files_and_metadata(hdf5: Path, minari_home: Path) -> None:
    os.truncate(hdf5, hdf5.stat().st_size // 2)
    assert "cannot be read, it is damaged" in refusal("minari:test/aligned-v0")
    os.truncate(hdf5, 0)
    assert "cannot be read, it is damaged" in refusal("minari:test/aligned-v0")
    hdf5.unlink()
    assert "cannot be read, it is damaged" in refusal("minari:test/aligned-v0")
    edit_metadata(minari_home, data_format="zarr")
    assert "data_format 'zarr' is unknown here" in refusal("minari:test/aligned-v0")
    edit_metadata(minari_home, observation_space='{"type": "Graph"}', data_format="hdf5")
    assert "observation_space is of a kind that Minari itself cannot read" in refusal("minari:test/aligned-v0")
    edit_metadata(minari_home, observation_space=None)
    assert "lacks observation_space: write the data set again" in refusal("minari:test/aligned-v0")
    (hdf5.parent / "metadata.json").write_text("{")
    assert "metadata.json cannot be read" in refusal("minari:test/aligned-v0")


def test_an_export_of_ours_says_of_which_task_it_is(tmp_path: Path) -> None:
    from helpers.aligned import stored

    from pmpo_offline.data.exchange import export_dataset

    references = data.References(min=0, max=9, how="by hand", versions={"mujoco": "3.17.0"})
    dataset = stored(tmp_path / "home", [3, 1, 4], task="mujoco/hopper", references=references)
    source = found(export_dataset(dataset, "minari", tmp_path / "out"))
    assert (source.task, source.references) == ("mujoco/hopper", references)
    assert_same(source.read().experience, experience([3, 1, 4]))
