"""What arrays, attributes and files say of episodes, in the shapes and under the names that people give them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.aligned import experience
from helpers.foreign import Arrays, as_d4rl, assert_same, hdf5, minari_set, npz, read, without
from helpers.four_episodes import EPISODE, LAST, LENGTHS, OURS, STATES, STEPS, WRITTEN, parquet
from helpers.imports import refused
from helpers.robots import accepted, d3rlpy, frames_of, lerobot, robomimic

from pmpo_offline.build import import_dataset, show
from pmpo_offline.data import Dataset, columns

GYMNASIUM = {"terminals": "terminations", "timeouts": "truncations"}
pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.filterwarnings("ignore:.*actions reach", "ignore:.*has no")]


def called(arrays: Arrays, names: dict[str, str]) -> Arrays:
    return {names.get(name, name): values for name, values in arrays.items()}


def ran_out_without_successor(got: Any) -> None:
    """The episodes 1 and 2, which ran out of time, lost their last rows."""
    assert got.experience.length.tolist() == [4, 2, 4, 2]
    assert got.experience.terminated.tolist() == [True, False, False, True]
    assert got.experience.final_observation[1:3].tolist() == STEPS["observations"][LAST[1:3]].tolist()
    assert sum(got.notes["report"]["dropped"].values()) == 2


def test_names_of_classes_say_which_is_accept(tmp_path: Path) -> None:
    names = ["success", "failure"]
    label = np.array([0, 1, -1, 0])[EPISODE]
    path = parquet(tmp_path / "set.parquet", STEPS | {"label": label}, {"label": names})
    assert accepted(import_dataset(path)) == [1, -1, 0, 1]
    human = parquet(tmp_path / "human.parquet", STEPS | {"human": label}, {"human": names})
    assert accepted(import_dataset(human, score="human")) == [1, -1, 0, 1]
    actions = parquet(tmp_path / "a.parquet", STEPS | {"actions": EPISODE}, {"action": ["up", "down", "left", "right"]})
    assert import_dataset(actions, actions=4).metadata.actions == 4, "classes of actions stay numbers"
    success = parquet(tmp_path / "b.parquet", STEPS | {"success": EPISODE % 2}, {"success": names})
    assert "success holds classes" in refused(import_dataset, success)
    folder = lerobot(tmp_path / "frames", frames_of(WRITTEN, {"label": EPISODE % 2}))
    for file in folder.glob("data/**/*.parquet"):
        about = {"huggingface": json.dumps({"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}})}
        pq.write_table(pq.read_table(file).replace_schema_metadata(about), file)
    with pytest.warns(UserWarning, match="dropped 4 rows"):
        assert accepted(import_dataset(folder)) == [1, -1, 1, -1]


@pytest.mark.parametrize(
    ("write", "names"),
    [
        (npz, OURS),
        (hdf5, OURS),
        (parquet, {}),
        (parquet, {ours: theirs for theirs, ours in OURS.items()}),
        (hdf5, GYMNASIUM),
    ],
    ids=["ours.npz", "ours.hdf5", "ours.parquet", "d4rl.parquet", "gymnasium.hdf5"],
)
def test_names_of_arrays_are_the_same_in_every_file(
    tmp_path: Path, write: Callable[..., Path], names: dict[str, str]
) -> None:
    path = tmp_path / f"set.{write.__name__}"
    table = write(path, called(STEPS, names))
    if names and write is parquet:
        pq.write_table(pq.read_table(path).rename_columns([*STEPS]), path)
    assert_same(read(table).experience, WRITTEN)


def test_steps_whose_ends_are_marked_as_in_older_files(tmp_path: Path) -> None:
    """d3rlpy of version 1 marks the end of an episode apart from its termination."""
    arrays = without(STEPS, "timeouts", "next_observations") | {"episode_terminals": np.isin(np.arange(14), LAST)}
    ran_out_without_successor(read(hdf5(tmp_path / "set.h5", arrays)))
    unmarked = parquet(tmp_path / "set.parquet", without(STEPS, "timeouts"))
    assert_same(read(unmarked).experience, WRITTEN)
    nothing = without(STEPS, "timeouts", "next_observations")
    assert "lacks truncated and next_observation" in refused(read, parquet(tmp_path / "no.parquet", nothing))


def test_observations_in_a_group_are_joined(tmp_path: Path) -> None:
    parts = without(STEPS, "observations", "next_observations")
    for name in ("observations", "next_observations"):
        parts |= {f"{name}/arm": STEPS[name][:, :1], f"{name}/base": STEPS[name][:, 1:]}
    assert_same(read(hdf5(tmp_path / "set.hdf5", parts)).experience, WRITTEN)
    camera = {"observations/camera": np.zeros((14, 4, 4, 3), np.uint8)}
    path = hdf5(tmp_path / "b.h5", parts | camera)
    assert "observations/camera is no row of numbers a step, and images" in refused(read, path)
    lists = STEPS | {"observations": [[[1.0], [2.0]]] * 14}
    assert "holds lists of lists: write a row of numbers a step" in refused(
        read, parquet(tmp_path / "c.parquet", lists)
    )


@pytest.mark.parametrize("of", ["next_observations", "rewards", "actions"])
@pytest.mark.parametrize("write", [npz, parquet])
def test_what_is_nan_where_it_means_nothing_is_not_refused(tmp_path: Path, of: str, write: Callable[..., Path]) -> None:
    cut = ~WRITTEN.terminated
    rows = LAST if of == "next_observations" else LAST[cut]
    values = STEPS[of].copy()
    values[rows] = np.nan
    arrays = STEPS | {of: values}
    if of != "next_observations":
        del arrays["next_observations"]
    ran_out_without_successor(read(write(tmp_path / f"set.{write.__name__}", arrays)))
    values[1] = np.nan
    message = refused(read, write(tmp_path / f"bad.{write.__name__}", arrays))
    assert "holds NaN or infinite values, first in row 1" in message


@pytest.mark.skipif(
    tuple(map(int, pl.__version__.split(".")[:2])) < (1, 34), reason="polars before 1.34 cannot shift vectors"
)
def test_successors_as_polars_shifts_them(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {name: pl.Series(STEPS[theirs]) for theirs, name in OURS.items()} | {"episode": EPISODE}
    ).with_columns(next_observation=pl.col("observation").shift(-1).over("episode"))
    frame.write_parquet(tmp_path / "set.parquet")
    ran_out_without_successor(read(tmp_path / "set.parquet"))


def test_frames_that_are_dropped_may_hold_anything(tmp_path: Path) -> None:
    frames = frames_of(WRITTEN)
    for name in ("action", "next.reward"):
        frames[name] = np.array(frames[name])
        frames[name][LAST] = np.nan
    assert read(lerobot(tmp_path / "set", frames)).experience.length.tolist() == [3, 2, 4, 1]


@pytest.mark.parametrize(
    ("success", "right"),
    [
        (np.array([1, 0, 1, 0]), [True, False, True, False]),
        (np.where(np.isin(np.arange(14), LAST), EPISODE % 2, np.nan), [False, True, False, True]),
        (np.full(14, np.nan), None),
        (np.full(4, np.nan), None),
        (np.where(EPISODE == 2, np.nan, 1), "success says nothing of 1 episodes, first of number 2"),
        (np.ones(5), "success has 5 rows: expected one a step, 14, or one an episode, 4"),
        (np.array(True), "success has 1 rows: expected one a step, 14, or one an episode, 4"),
    ],
    ids=["of episodes", "at their ends", "unknown", "unknown of episodes", "of some", "of five", "of the file"],
)
def test_success_of_steps_and_of_episodes(tmp_path: Path, success: Any, right: list[bool] | str | None) -> None:
    path = npz(tmp_path / "set.npz", STEPS | {"success": success})
    if isinstance(right, str):
        assert right in refused(read, path)
        return
    found = read(path)
    assert found.notes["success"] is (right is not None)
    assert found.experience.success.tolist() == (right or [False] * 4)
    if len(success) == 4:
        return
    null = parquet(tmp_path / "set.parquet", STEPS | {"success": [None if np.isnan(x) else x == 1 for x in success]})
    assert read(null).experience.success.tolist() == (right or [False] * 4)


def test_files_of_one_episode_hold_one_value(tmp_path: Path) -> None:
    for index, (length, label) in enumerate(zip(LENGTHS, ["good", "bad", "good", "bad"], strict=True)):
        npz(tmp_path / f"run_{index}.npz", as_d4rl(experience([length])) | {"label": label, "success": index == 1})
    dataset = import_dataset(tmp_path)
    assert accepted(dataset) == [1, -1, 1, -1]
    assert columns.vector(dataset.episodes, "success").tolist() == [False, True, False, False]


def test_attributes_of_episodes_may_be_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    name = minari_set(WRITTEN, infos=lambda index, length: {"goal_achieved": np.full(length + 1, index == 1)})
    demos = robomimic(tmp_path / "demos.hdf5", WRITTEN, success=EPISODE == 1)
    with h5py.File(tmp_path / "minari/test/aligned-v0/data/main_data.hdf5", "a") as sets, h5py.File(demos, "a") as file:
        for group in (*(sets[f"episode_{index}"] for index in range(4)), *file["data"].values()):
            group.attrs.update(label=1 - int(group.name[-1]) % 2, grade=int(group.name[-1]))
    for source in (name, demos):
        dataset = import_dataset(source)
        assert accepted(dataset) == [1, -1, 1, -1]
        assert columns.vector(dataset.episodes, "success").tolist() == [False, True, False, False]
        assert accepted(import_dataset(source, score="grade", label="column:1.5")) == [-1, -1, 1, 1]
        assert [c.rpartition("/")[2] for c in show(dataset)["report"]["columns_not_used"]] == ["grade"]


@pytest.mark.parametrize(("key", "values"), [("success", True), ("label", 1), ("label", [1, 0, 1])])
def test_infos_of_minari_of_other_lengths(
    tmp_path: Path, key: str, values: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    name = minari_set(experience([4, 4]))
    with h5py.File(tmp_path / "minari/test/aligned-v0/data/main_data.hdf5", "a") as file:
        for index in range(2):
            file[f"episode_{index}/infos/{key}"] = values
    if isinstance(values, list):
        assert f"infos {key} has 3 values and the episode 4 steps" in refused(read, name)
    elif key == "success":
        assert read(name).experience.success.tolist() == [True, True]
    else:
        assert read(name).feedback == pytest.approx([1, 1])


def test_episodes_without_steps_are_refused_by_number(tmp_path: Path) -> None:
    path, demos = d3rlpy(tmp_path / "set.h5", WRITTEN), robomimic(tmp_path / "demos.hdf5", WRITTEN)
    with h5py.File(path, "a") as file, h5py.File(demos, "a") as other:
        for name in ("observations", "actions", "rewards"):
            del file[f"{name}_1"]
            file[f"{name}_1"] = STEPS[name][:0]
        del other["data/demo_1/actions"]
        other["data/demo_1/actions"] = STEPS["actions"][:0]
    assert "set.h5: episode 1 has no steps" in refused(read, path)
    assert "demos.hdf5: demo_1 has no steps" in refused(read, demos)


def test_episodes_of_files_whose_ends_are_not_marked_are_not_joined(tmp_path: Path) -> None:
    arrays = without(STEPS, "next_observations") | {name: np.zeros(14, bool) for name in ("terminals", "timeouts")}
    for index in range(4):
        own = {name: values[index == EPISODE] for name, values in arrays.items()}
        parquet(tmp_path / f"{index}.parquet", own)
    assert "0.parquet: the last row is marked neither terminated nor truncated" in refused(read, tmp_path)


def test_files_without_rows_mark_no_ends_and_need_none(tmp_path: Path) -> None:
    arrays = without(STEPS, "next_observations")
    for name, rows in (("0", EPISODE < 2), ("1", EPISODE > 9), ("2", EPISODE >= 2)):
        parquet(tmp_path / f"{name}.parquet", {key: values[rows] for key, values in arrays.items()})
    ran_out_without_successor(read(tmp_path))


def test_doubts_of_several_files_add_up(tmp_path: Path) -> None:
    for name, lengths in (("a", [2, 3]), ("b", [2, 1, 4])):
        arrays = as_d4rl(experience(lengths))
        npz(tmp_path / f"{name}.npz", arrays | {mark: arrays[mark] & False for mark in ("terminals", "timeouts")})
    with pytest.warns(UserWarning, match="3 episodes end unmarked"):
        import_dataset(tmp_path)


def imported(tmp_path: Path, arrays: dict[str, Any], **asked: Any) -> Dataset:
    return import_dataset(npz(tmp_path / "set.npz", arrays), **asked)


def test_the_default_rule_where_all_returns_are_equal(tmp_path: Path) -> None:
    end = np.isin(np.arange(14), LAST)
    dataset = imported(tmp_path, STEPS | {"rewards": end * 1.0, "success": end})
    assert (str(dataset.metadata.label), accepted(dataset)) == ("success:0.5", [1] * 4)
    unrewarded = imported(tmp_path, without(STEPS, "rewards") | {"success": end}, overwrite=True)
    assert accepted(unrewarded) == [1] * 4
    split = imported(tmp_path, STEPS | {"success": end}, overwrite=True)
    assert str(split.metadata.label) == "return:q0.5"


def test_repeated_episodes_are_counted_and_contradicting_ones_warned_of(tmp_path: Path) -> None:
    twice = {name: np.concatenate([values, values[:9]]) for name, values in STEPS.items()}
    twice["rewards"] = np.append(STEPS["rewards"], [*STEPS["rewards"][:7], 0.5, 0.5])  # episode 2 for two steps only
    twice["timeouts"][-1] = True
    label = np.append(1 - EPISODE % 2, [1, 1, 1, 1, 1, 1, 1, 0, 0])
    with pytest.warns(UserWarning, match="1 episodes repeat an earlier one in all numbers, with another label"):
        dataset = imported(tmp_path, twice | {"label": label})
    assert show(dataset)["report"] == {"repeated_episodes": 2, "contradicting_episodes": 1}


def test_labels_of_single_steps_of_episodes_are_warned_of(tmp_path: Path) -> None:
    at_last = np.where(np.isin(np.arange(14), LAST), 1 - EPISODE % 2, np.nan)
    with pytest.warns(UserWarning, match="label is of the last steps of episodes only: if it is meant of whole"):
        assert imported(tmp_path, STEPS | {"label": at_last}).metadata.unit == "step"


@pytest.mark.parametrize("names", [("train", "val"), ("cube-single-play-v0", "cube-single-play-v0-val")])
def test_files_that_are_held_out_by_their_names_are_warned_of(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        npz(tmp_path / f"{name}.npz", STEPS)
    with pytest.warns(UserWarning, match="val.npz is held out by its name, and all episodes are for training"):
        import_dataset(tmp_path)


def test_labels_in_files_that_a_person_sorted_are_reported(tmp_path: Path) -> None:
    for name in ("accepts", "rejects"):
        (tmp_path / name).mkdir()
        npz(tmp_path / name / "a.npz", STEPS | {"label": EPISODE})
    with pytest.warns(UserWarning, match="label may be feedback and is not used"):
        assert accepted(import_dataset(tmp_path)) == [1] * 4 + [-1] * 4


def vector_environment(streams: int, resets: str) -> Arrays:
    """Episodes of `streams` environments, one after the other; the last of each is cut off where the recording ends.

    `resets`: "same step": the successor of an episode's last row is the next episode's first observation; "next step":
    a step without a reward leads there.
    """
    parts = []
    for stream in range(streams):
        part, last = {name: values[9:] + 0 for name, values in as_d4rl(experience([5, 4, 3, 6, 2])).items()}, [2, 8, 10]
        part["timeouts"], part["terminals"] = part["timeouts"] | part["terminals"], np.zeros(11, bool)
        part["rewards"] = 1 + 0 * part["rewards"]
        part["observations"], part["next_observations"] = (
            part[name] + 100 * stream for name in ("observations", "next_observations")
        )
        following, here = part["next_observations"], part["observations"]
        if resets == "same step":
            following[last[:2]] = here[np.array(last[:2]) + 1]
        else:
            final, at = following[last[:2]], np.array(last[:2]) + 1
            begun = here[at]
            part = {name: np.insert(values, at, 0, axis=0) for name, values in part.items()}
            new = at + np.arange(2)
            part["observations"][new], part["next_observations"][new] = final, begun
        parts.append(part)
    return {name: np.concatenate([part[name] for part in parts]) for name in STEPS}


def test_vector_environments_that_reset_themselves_end_with_rows_of_their_own(tmp_path: Path) -> None:
    found = read(npz(tmp_path / "same.npz", vector_environment(3, "same step")))
    assert found.experience.length.tolist() == [2, 5, 2] * 3, "the last of each environment has a successor of its own"
    reason = "the last row of an episode that ran out of time: next_observations has the next episode's first"
    assert found.notes["report"]["dropped"] == {reason: 6}  # type: ignore[index, call-overload]
    with pytest.warns(UserWarning, match="most episodes begin with the observation with which the one before it ended"):
        import_dataset(npz(tmp_path / "next.npz", vector_environment(3, "next step")))


@pytest.mark.parametrize("form", ["d4rl", "rlds", "lerobot"])
def test_success_in_first_rows_only_is_warned_of(tmp_path: Path, form: str) -> None:
    """The info of a reset may be that of the episode before."""
    first = np.diff(EPISODE, prepend=-1) > 0
    if form == "lerobot":
        source = lerobot(tmp_path / "set", frames_of(WRITTEN, {"next.success": first & (EPISODE % 2 == 1)}))
    elif form == "rlds":
        source = npz(tmp_path / "set.npz", STATES | {"success": STATES["is_first"] & (np.arange(18) > 4)})
    else:
        source = hdf5(tmp_path / "set.hdf5", STEPS | {"infos/success": first & (EPISODE % 2 == 1)})
    with pytest.warns(UserWarning, match=r"\d episodes are a success by their first step alone"):
        import_dataset(source)


def test_two_names_of_the_same_ends_must_agree(tmp_path: Path) -> None:
    both = STEPS | {"terminations": STEPS["terminals"], "dones": STEPS["terminals"] | STEPS["timeouts"]}
    assert_same(read(npz(tmp_path / "set.npz", both)).experience, WRITTEN)
    differ = npz(tmp_path / "differ.npz", both | {"terminations": ~STEPS["terminals"]})
    assert "terminals and terminations differ: leave one of them out" in refused(read, differ)
    done = without(STEPS, "terminals", "timeouts") | {"done": STEPS["terminals"]}
    for path in (npz(tmp_path / "done.npz", done), parquet(tmp_path / "done.parquet", done)):
        assert "done does not say whether the task ended an episode or time ran out" in refused(read, path)


def test_successors_may_be_stored_as_bfloat16(tmp_path: Path) -> None:
    numbers = np.split(np.random.default_rng(0).normal(scale=30, size=(18, 3)).astype(np.float32), np.cumsum([5, 4, 6]))
    after = np.concatenate([each[1:] for each in numbers]).view(np.uint32) & 0xFFFF0000
    arrays = {"observations": np.concatenate([each[:-1] for each in numbers]), "next_observations": after.view("f4")}
    assert read(npz(tmp_path / "set.npz", STEPS | arrays)).experience.length.tolist() == LENGTHS


def test_padding_of_one_hot_actions_is_no_choice(tmp_path: Path) -> None:
    chosen = np.eye(3, dtype=int)[np.arange(18) % 3] * ~STATES["is_last"][:, None]
    dataset = imported(tmp_path, STATES | {"action": chosen}, actions=3)
    assert columns.matrix(dataset.table, "action")[:, 0].tolist() == (np.arange(18) % 3)[~STATES["is_last"]].tolist()


def test_steps_in_the_folder_data_of_the_hub(tmp_path: Path) -> None:
    (tmp_path / "set/data").mkdir(parents=True)
    parquet(tmp_path / "set/data/train-00000-of-00001.parquet", STEPS)
    assert_same(read(tmp_path / "set").experience, WRITTEN)


def test_files_without_rows_and_decimals_are_read(tmp_path: Path) -> None:
    table = pq.read_table(parquet(tmp_path / "1.parquet", STEPS))
    rewards = table["reward"].cast(pa.decimal128(12, 4))
    pq.write_table(table.set_column(table.schema.get_field_index("reward"), "reward", rewards), tmp_path / "1.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / "0.parquet")
    assert_same(read(tmp_path).experience, WRITTEN)
    (tmp_path / "1.parquet").unlink()
    assert "holds no rows" in refused(read, tmp_path)


def test_rewards_in_last_rows_of_rlds_and_rows_marked_as_gone_are_warned_of(tmp_path: Path) -> None:
    """Many writers of RLDS end an episode with its last action, for which there is no successor."""
    rewards = {"reward": STATES["is_last"] & (np.arange(18) > 4)}
    path = npz(tmp_path / "set.npz", STATES | rewards | {"excluded": np.zeros(18)})
    with pytest.warns(UserWarning, match="3 episodes have a reward in their last row, where RLDS has nothing done"):
        dataset = import_dataset(path)
    assert dataset.episodes["return"].to_pylist() == [0.0] * 4
    with pytest.warns(UserWarning, match="excluded is not used: leave out the rows that it marks"):
        import_dataset(path, overwrite=True)


def test_rows_of_ogbench_that_are_marked_twice_need_valids(tmp_path: Path) -> None:
    ends = STATES["is_last"]
    arrays = {"observations": STATES["observation"], "actions": STATES["action"], "terminals": ends}
    twice = arrays | {"terminals": ends | np.append(ends[1:], False)}
    assert "terminals marks two rows of every episode" in refused(read, npz(tmp_path / "cube-v0.npz", twice))
    assert read(npz(tmp_path / "b.npz", twice | {"valids": ~ends})).experience.length.tolist() == LENGTHS
