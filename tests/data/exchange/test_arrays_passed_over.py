"""What files of steps hold beside the arrays of their form is used, refused by name or counted in the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.aligned import experience
from helpers.foreign import as_d4rl, as_states, found, hdf5, minari_set, npz, read
from helpers.imports import refused
from helpers.robots import d3rlpy, frames_of, lerobot, robomimic

from pmpo_offline.build import import_dataset, show

LENGTHS = [3, 1, 4]
STEPS = as_d4rl(experience(LENGTHS))
EPISODE = np.repeat(np.arange(3), LENGTHS)
pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.filterwarnings("ignore:.*actions reach")]


def test_arrays_that_are_not_used_are_in_the_report(tmp_path: Path) -> None:
    more = {"weight": np.ones(8), "infos/qpos": np.zeros((8, 2)), "metadata/policy": np.zeros(3), "label": EPISODE % 2}
    path = hdf5(tmp_path / "set-v0.hdf5", STEPS | more)
    assert read(path).notes["report"] == {"columns_not_used": ["infos/qpos", "weight"]}
    assert show(import_dataset(path))["report"] == {"columns_not_used": ["infos/qpos", "weight"]}
    assert "report" not in read(hdf5(tmp_path / "plain.hdf5", STEPS)).notes


@pytest.mark.parametrize("form", ["hdf5", "arrow"])
def test_infos_of_minari_that_are_not_used_are_in_the_report(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))

    def infos(_: int, length: int) -> dict[str, Any]:
        counted = np.arange(length + 1.0)
        return {"is_success": counted > 1, "rating": counted, "camera": {"left": np.zeros((length + 1, 2))}}

    name = minari_set(experience(LENGTHS), form=form, infos=infos)
    assert read(name).notes["report"] == {"columns_not_used": ["infos/camera/left", "infos/rating"]}
    assert found(name).read("rating").notes["report"] == {"columns_not_used": ["infos/camera/left"]}


def test_arrays_of_robots_that_are_not_used_are_in_the_report(tmp_path: Path) -> None:
    path = robomimic(tmp_path / "demos-v0.hdf5", experience(LENGTHS))
    with h5py.File(path, "r+") as file:
        for demo in file["data"].values():
            demo["states"] = np.zeros((len(demo["actions"]), 9))
            demo["action_dict/pose"] = np.zeros((len(demo["actions"]), 2))
    assert read(path).notes["report"]["columns_not_used"] == ["action_dict/pose", "states"]
    path = d3rlpy(tmp_path / "replay.h5", experience(LENGTHS))
    with h5py.File(path, "r+") as file:
        for episode in range(len(LENGTHS)):
            file[f"action_values_{episode}"] = np.zeros(LENGTHS[episode])
    assert read(path).notes["report"]["columns_not_used"] == ["action_values"]


def test_arrays_that_only_some_files_have_are_in_the_report(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for place, more in enumerate(({}, {"weight": np.ones(4)})):
        npz(tmp_path / f"set/{place}.npz", as_states(experience([3])) | more)
    assert read(tmp_path / "set").notes["report"]["columns_not_used"] == ["weight"]


def test_a_column_of_splits_is_warned_of(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "set-v0.hdf5", STEPS | {"is_test": EPISODE == 2})
    with pytest.warns(UserWarning, match="is_test is not used, and all episodes are for training"):
        import_dataset(path)


def test_splits_of_robots_are_warned_of(tmp_path: Path) -> None:
    masks = {"train": [0, 1], "valid": [2], "better": [0]}
    demos = robomimic(tmp_path / "demos-v0.hdf5", experience(LENGTHS), masks=masks)
    with pytest.warns(UserWarning, match="mask/valid is not used, and all episodes are for training"):
        assert show(import_dataset(demos))["report"]["columns_not_used"] == ["mask/valid"]
    folder = lerobot(
        tmp_path / "frames", frames_of(experience(LENGTHS), {"next.done": STEPS["terminals"] > 0, "weight": EPISODE})
    )
    path = folder / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"splits": {"train": "0:2", "val": "2:3"}}))
    with pytest.warns(UserWarning, match="split is not used, and all episodes are for training"):
        assert show(import_dataset(folder))["report"]["columns_not_used"] == ["weight", "split"]


@pytest.mark.parametrize("name", ["solved", "task_success"])
def test_success_has_other_names(tmp_path: Path, name: str) -> None:
    recorded = read(hdf5(tmp_path / "set-v0.hdf5", STEPS | {name: EPISODE == 1}))
    assert recorded.notes["success"] is True
    assert recorded.experience.success.tolist() == [False, True, False]


def test_one_number_a_row_is_an_observation(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "set-v0.hdf5", {**STEPS, **{name: STEPS[name][:, 1] for name in NAMES}})
    assert np.array_equal(read(path).experience.observation[:, 0], STEPS["observations"][:, 1])


NAMES = ("observations", "next_observations")


def test_the_score_that_means_unknown_is_warned_of(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "set-v0.hdf5", STEPS | {"human": np.array([5.0, -999.0, 3.0])[EPISODE]})
    with pytest.warns(UserWarning, match="1 scores are -999 and no other is below 0"):
        import_dataset(path, score="human")
    assert "score failed: if less of it is better" in refused(import_dataset, path, score="failed")


def test_rlds_discounts_and_marks_must_agree(tmp_path: Path) -> None:
    states = as_states(experience(LENGTHS))
    last = states["is_last"].astype(bool)
    in_last_step = np.append(last[1:], False)
    ended = np.append(states["is_terminal"].astype(bool)[1:], False)
    assert ended.any()
    assert (in_last_step & ~ended).any()
    agree = npz(tmp_path / "set.npz", states | {"discount": 1.0 - ended})
    assert read(agree).experience.terminated.any()
    differ = npz(tmp_path / "differ.npz", states | {"discount": 1.0 - in_last_step})
    assert "an episode's last step, and the row after it is not is_terminal" in refused(read, differ)


@pytest.mark.parametrize("said", [0.0, np.nan, "unknown"])
def test_rlds_discounts_that_say_nothing_are_passed_over(tmp_path: Path, said: float | str) -> None:
    states = as_states(experience(LENGTHS))
    column = np.full(len(states["is_last"]), said)
    given = read(npz(tmp_path / "set.npz", states | {"discount": column})).experience
    assert np.array_equal(given.terminated, read(npz(tmp_path / "none.npz", states)).experience.terminated)


def test_two_columns_of_labels_must_agree(tmp_path: Path) -> None:
    both = {"label": EPISODE == 1, "labels": EPISODE == 2}
    path = hdf5(tmp_path / "set-v0.hdf5", STEPS | both)
    assert "label and labels differ: say which one counts, with score label" in refused(import_dataset, path)
    assert import_dataset(path, score="labels").episodes["label"].to_pylist() == [False, False, True]
    agree = hdf5(tmp_path / "agree-v0.hdf5", STEPS | {"label": EPISODE == 1, "labels": (EPISODE == 1) * 1.0})
    assert import_dataset(agree).episodes["label"].to_pylist() == [False, True, False]


@pytest.mark.parametrize("name", ["label", "success"])
def test_what_means_something_is_in_all_files_of_a_folder_or_in_none(tmp_path: Path, name: str) -> None:
    states = as_states(experience(LENGTHS))
    npz(tmp_path / "0.npz", states | {name: states["is_last"]})
    npz(tmp_path / "1.npz", states)
    assert f"only some of the files hold {name}: write it in all of them, or in none" in refused(read, tmp_path)


def test_files_of_a_folder_have_rows_of_one_shape(tmp_path: Path) -> None:
    states = as_states(experience(LENGTHS))
    npz(tmp_path / "0.npz", states)
    npz(tmp_path / "1.npz", states | {"observation": states["observation"][:, :2]})
    assert "1.npz: rows of observation have shape (2,), and (3,) in 0.npz" in refused(read, tmp_path)


def test_arrays_that_may_be_feedback_are_warned_of(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "set-v0.hdf5", STEPS | {"infos/human_label": EPISODE == 1})
    with pytest.warns(
        UserWarning, match="infos/human_label may be feedback and is not used: --score infos/human_label"
    ):
        import_dataset(path)
    assert import_dataset(path, score="infos/human_label").episodes["label"].to_pylist() == [False, True, False]


@pytest.mark.parametrize("padding", ["zeros", "the same row"])
def test_successors_that_are_padding_are_none(tmp_path: Path, padding: str) -> None:
    last = np.cumsum(LENGTHS) - 1
    following = STEPS["next_observations"].copy()
    following[last] = 0 if padding == "zeros" else STEPS["observations"][last]
    found = read(hdf5(tmp_path / "set.hdf5", STEPS | {"next_observations": following}))
    without = read(hdf5(tmp_path / "without.hdf5", {name: STEPS[name] for name in STEPS if name[:4] != "next"}))
    for name in ("observation", "action", "reward", "length", "terminated"):
        assert np.array_equal(getattr(found.experience, name), getattr(without.experience, name)), name
    (reason,) = found.notes["report"]["dropped"]  # type: ignore[index, call-overload]
    assert reason == "the last row of an episode that ran out of time: next_observations has only padding there"
    one = following.copy()
    one[last[1]] = STEPS["next_observations"][last[1]]  # so that it is no padding elsewhere
    assert read(hdf5(tmp_path / "one.hdf5", STEPS | {"next_observations": one})).experience.length.tolist() == LENGTHS


def test_observations_that_never_change_need_no_padding(tmp_path: Path) -> None:
    still = {name: np.ones_like(STEPS[name]) for name in NAMES}
    assert read(hdf5(tmp_path / "set.hdf5", STEPS | still)).experience.length.tolist() == LENGTHS


def test_infinite_scores_are_refused(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "set.hdf5", STEPS | {"human": np.array([5.0, np.inf, 3.0])[EPISODE]})
    assert "human: expected a number, found inf in row 3 (NaN: unlabelled)" in refused(
        import_dataset, path, score="human"
    )


def test_flags_of_states_in_which_nothing_was_done_may_be_nan(tmp_path: Path) -> None:
    states = as_states(experience(LENGTHS))
    last = states["is_last"].astype(bool)
    solved = np.where(last, np.nan, np.append(last[1:], False) & (np.arange(len(last)) > 6))
    found = read(npz(tmp_path / "rlds.npz", states | {"success": solved}))
    assert found.experience.success.tolist() == [False, False, True]
    at_last = read(npz(tmp_path / "last.npz", states | {"success": np.where(last, solved[4] == 1, np.nan)}))
    assert at_last.experience.success.tolist() == [False, False, False]
    names = {"observations": "observation", "actions": "action", "rewards": "reward", "terminals": "is_last"}
    arrays = {name: states[theirs] for name, theirs in names.items()}
    masks = np.where(last, np.nan, solved != 1)
    got = read(npz(tmp_path / "cube-v0.npz", arrays | {"masks": masks})).experience
    assert got.success.tolist() == got.terminated.tolist() == [False, False, True]
