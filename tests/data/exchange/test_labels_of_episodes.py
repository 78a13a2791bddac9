"""Labels of episodes and of steps: in files of their own, in columns, arrays and the names of folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.aligned import experience
from helpers.foreign import as_d4rl, found, hdf5, npz, read, without
from helpers.four_episodes import EPISODE, LAST, LENGTHS, STATES, STEPS, WRITTEN, parquet
from helpers.imports import refused
from helpers.robots import accepted, d3rlpy, frames_of, lerobot, robomimic

from pmpo_offline.build import import_dataset
from pmpo_offline.data import Dataset, columns
from pmpo_offline.data.exchange import export_dataset

pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.filterwarnings("ignore:.*actions reach", "ignore:.*has no")]


def imported(tmp_path: Path, arrays: dict[str, Any], **asked: Any) -> Dataset:
    return import_dataset(npz(tmp_path / "set.npz", arrays), **asked)


NAMED = "episode,label\n"


@pytest.mark.parametrize(
    ("ids", "content", "right"),
    [
        ([1, 2, 3, 4], "1,1\n2,0\n3,1\n", [1, -1, 1, 0]),
        ([3.0, 5.0, 7.0, 9.0], "9,0\n3,1\n", [1, 0, 0, -1]),
        (["3", "5", "7", "9"], "9,0\nrun_3,1\n", [1, 0, 0, -1]),
        (["ep_3", "ep_2", "ep_1", "ep_0"], "ep_3,1\nep_2,0\n", [1, -1, 0, 0]),
        (["ep_3", "ep_2", "ep_1", "ep_0"], "3,1\n2.0,0\n", [1, -1, 0, 0]),
        (["kitchen-a", "kitchen-b", "lab-a", "lab-b"], "kitchen-b,1\nfilms/lab-a.mp4,0\n", [0, 1, -1, 0]),
        ([10, 11, 12, 13], "0,1\n", "episode 0 in line 2 is not in the source, which has 4 episodes, 10 to 13"),
        (["x", "y", "z", "w"], "0,1\n", "episode 0 in line 2 is not in the source, which has 4 episodes, x to w"),
    ],
)
def test_episodes_are_called_as_the_source_calls_them(
    tmp_path: Path, ids: list[Any], content: str, right: list[int] | str
) -> None:
    (labels := tmp_path / "labels.csv").write_text(NAMED + content)
    sources = [npz(tmp_path / "set.npz", STEPS | {"episode": np.array(ids)[EPISODE]})]
    if isinstance(right, str):
        assert right in refused(import_dataset, sources[0], labels=labels)
        return
    sources += [npz(tmp_path / "rlds.npz", STATES | {"traj_id": np.repeat(ids, np.array(LENGTHS) + 1)})]
    for source in sources:
        assert accepted(import_dataset(source, labels=labels)) == right


def test_vanished_episodes_of_files_count(tmp_path: Path) -> None:
    """The first of b.npz is the fourth, although one of a.npz has no step."""
    for name, lengths in (("a", [2, 3, 1]), ("b", [2, 2])):
        arrays = without(as_d4rl(experience(lengths)), "next_observations")
        arrays["terminals"], arrays["timeouts"] = arrays["timeouts"] & False, arrays["timeouts"] | arrays["terminals"]
        npz(tmp_path / f"{name}.npz", arrays)
    (labels := tmp_path / "labels.csv").write_text(NAMED + "0,1\n3,0\n4,1\n")
    with pytest.warns(UserWarning, match="dropped 5 rows"):
        assert accepted(import_dataset(tmp_path, labels=labels)) == [1, 0, -1, 1]


def test_files_of_one_episode_are_called_as_their_files(tmp_path: Path) -> None:
    for name, length in (("kitchen_a", 3), ("lab_b", 2)):
        npz(tmp_path / f"{name}.npz", as_d4rl(experience([length])))
    (tmp_path / "l.csv").write_text("file,label\nlab_b.npz,1\nkitchen_a.npz,0\n")
    assert accepted(import_dataset(tmp_path, labels=tmp_path / "l.csv")) == [-1, 1]


def test_a_file_of_labels_may_be_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell leaves the ~ of --labels=~/l.csv."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "l.csv").write_text(NAMED + "".join(f"{index},{index % 2}\n" for index in range(4)))
    assert accepted(imported(tmp_path, STEPS, labels="~/l.csv")) == [-1, 1, -1, 1]


def step_labels(dataset: Dataset) -> list[int]:
    return columns.labels(dataset.table).tolist()


@pytest.mark.parametrize(
    ("name", "content", "right"),
    [
        ("l.csv", "episode,step,label\n0,3,0\n1,2,1\n", {3: -1, 6: 1}),
        ("l.csv", "episode,frame_index,score\n0,3.0,-2\n3,1,1\n", {3: -1, 13: 1}),
        ("l.csv", "episode,step,label\n0,4,0\n", "line 2: step 4 is not in the source, which has 4 steps of episode 0"),
        ("l.csv", "episode,step,label\n0,1,0\n0,1,1\n", "episode 0, step 1, has two values, '0' in line 2 and '1' in"),
        ("l.csv", "episode,step,label\n0,1.5,0\n", "step 1.5 is not in the source"),
        ("l.csv", "episode,start_step,end_step,label\n0,0,2,1\n", "start_step is of ranges: write a row for each step"),
        (
            "l.csv",
            "episode,label\n2026-11-01,1\n",
            "expected an episode's number or a name that ends with it, found '2026",
        ),
        ("l.csv", "episode,label\n0x1,1\n", "expected an episode's number or a name that ends with it, found '0x1'"),
        ("l.jsonl", '{"episodeId": 0, "thumbsDown": true}\n{"episodeId": 1, "thumbsDown": false}', [-1, 1, 0, 0]),
        ("l.json", '{"0": true, "demo_1": false, "3": "good"}', [1, -1, 0, 1]),
        ("l.json", '{"episode": [0, 1], "label": [1, 0]}', [1, -1, 0, 0]),
        ("l.csv", "demo,label\ndemo_0,1\ndemo_1,0\n", [1, -1, 0, 0]),
        ("l.csv", "demo,episode,label\ndemo_0,3,1\ndemo_1,2,0\n", [0, 0, -1, 1]),
    ],
)
def test_files_of_labels_name_episodes_and_steps(
    tmp_path: Path, name: str, content: str, right: dict[int, int] | list[int] | str
) -> None:
    (labels := tmp_path / name).write_text(content)
    path, rule = npz(tmp_path / "set.npz", STEPS), "column:0" if "score" in content else None
    if isinstance(right, str):
        assert right in refused(import_dataset, path, labels=labels)
        return
    dataset = import_dataset(path, labels=labels, label=rule)
    if isinstance(right, list):
        assert accepted(dataset) == right
    else:
        assert step_labels(dataset) == [right.get(row, 0) for row in range(14)]


def test_labels_of_rows_that_were_dropped_are_counted(tmp_path: Path) -> None:
    path = npz(tmp_path / "set.npz", without(STEPS, "next_observations"))
    rows = "".join(f"{e},{s},{s % 2}\n" for e, length in enumerate(LENGTHS) for s in range(length))
    (labels := tmp_path / "l.csv").write_text("episode,step,label\n" + rows)
    with pytest.warns(UserWarning, match="labels 2 rows that were dropped, as no steps"):
        dataset = import_dataset(path, labels=labels)
    assert step_labels(dataset) == [-1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1]


@pytest.mark.parametrize("source", ["label", "labels file"])
def test_scores_of_episodes_are_compared_in_their_own_precision(tmp_path: Path, source: str) -> None:
    grades = np.array([0.1, 0.2, 0.05, 0.1])
    asked: dict[str, Any] = {"score": "grade"}
    if source == "labels file":
        (labels := tmp_path / "l.csv").write_text(
            "episode,grade\n" + "".join(f"{i},{g}\n" for i, g in enumerate(grades))
        )
        asked = {"labels": labels}
    dataset = imported(tmp_path, STEPS | {"grade": grades[EPISODE]}, label="column:0.1", **asked)
    assert accepted(dataset) == [-1, 1, -1, -1]


@pytest.mark.parametrize("write", [npz, parquet])
def test_labels_in_rows_that_are_no_steps_are_of_the_episodes(tmp_path: Path, write: Callable[..., Path]) -> None:
    rows = np.cumsum(np.array(LENGTHS) + 1) - 1
    label = np.full(18, np.nan)
    label[rows] = [1, 0, np.nan, 1]
    path = write(tmp_path / f"set.{write.__name__}", STATES | {"label": label})
    assert accepted(import_dataset(path)) == [1, -1, 0, 1]
    words = np.where(np.isnan(label), "", np.where(label == 1, "good", "bad"))
    assert accepted(import_dataset(npz(tmp_path / "words.npz", STATES | {"label": words}))) == [1, -1, 0, 1]
    arrays = without(STEPS, "next_observations") | {
        "label": np.where(np.isin(np.arange(14), LAST), EPISODE % 2, np.nan)
    }
    assert accepted(import_dataset(npz(tmp_path / "lost.npz", arrays))) == [-1, 1, -1, 1], (
        "two of the rows were dropped"
    )


@pytest.mark.parametrize("column", ["failed", "infos/failed", "rank", "mask/bad"])
def test_labels_of_which_less_is_better_have_to_say_so(tmp_path: Path, column: str) -> None:
    failed = EPISODE % 2 == 1
    if column == "mask/bad":
        source = robomimic(tmp_path / "set.hdf5", WRITTEN, masks={"good": [0, 2], "bad": [1, 3]})
    else:
        source = hdf5(tmp_path / "set.hdf5", STEPS | {column: failed})
    if column == "rank":  # says it
        assert accepted(import_dataset(source, score="rank")) == [1, -1, 1, -1]
        return
    message = refused(import_dataset, source, score=column)
    assert f"score {column}: if less of it is better, write score=-{column}" in message
    assert accepted(import_dataset(source, score=f"-{column}")) == [1, -1, 1, -1]
    assert accepted(import_dataset(source, score=f"+{column}")) == [-1, 1, -1, 1]


def test_masks_that_may_be_feedback_are_warned_of(tmp_path: Path) -> None:
    path = robomimic(tmp_path / "set.hdf5", WRITTEN, masks={"good": [0, 2], "better": [1], "valid": [3]})
    with pytest.warns(UserWarning, match="mask/good may be feedback and is not used: --score mask/good takes it"):
        import_dataset(path)


def test_labels_of_episodes_in_files_of_d3rlpy_and_success_of_last_frames(tmp_path: Path) -> None:
    path = d3rlpy(tmp_path / "set.h5", WRITTEN)
    with h5py.File(path, "a") as file:
        for index in range(4):
            file[f"label_{index}"] = [0, 1, 0, 1][index] if index < 2 else np.full(LENGTHS[index], index % 2)
    with pytest.warns(UserWarning, match="dropped 2 rows"):
        assert accepted(import_dataset(path)) == [-1, 1, -1, 1]
    at_last = np.where(np.isin(np.arange(14), LAST), EPISODE % 2, np.nan)
    folder = lerobot(tmp_path / "frames", frames_of(WRITTEN, {"next.success": at_last}))
    assert read(folder).experience.success.tolist() == [False, True, False, True]


def test_columns_of_labels_that_differ_are_refused_in_groups_of_episodes_too(tmp_path: Path) -> None:
    labels = {"label": EPISODE % 2, "adv_ind": 1 - EPISODE % 2}
    path = d3rlpy(tmp_path / "set.h5", WRITTEN)
    with h5py.File(path, "a") as file:
        file.update(
            {f"{name}_{index}": values[index == EPISODE] for name, values in labels.items() for index in range(4)}
        )
    for source in (path, robomimic(tmp_path / "demos.hdf5", WRITTEN, **labels)):
        assert "label and adv_ind differ: say which one counts, with --score label" in refused(read, source)


def test_columns_of_labels_may_be_equal_where_nothing_is_labelled(tmp_path: Path) -> None:
    labels = np.where(EPISODE == 1, np.nan, EPISODE % 2)
    assert accepted(imported(tmp_path, STEPS | {"label": labels, "labels": labels})) == [-1, 0, -1, 1]


def test_labels_of_robomimic_are_found_where_they_are(tmp_path: Path) -> None:
    """Neither a mask of that name nor an array of a group is an array `label` of the episodes."""
    path = robomimic(tmp_path / "set.hdf5", WRITTEN, masks={"label": [1]}, **{"infos/label": EPISODE % 2})
    assert accepted(import_dataset(path)) == [-1, 1, -1, 1]
    exported = export_dataset(import_dataset(path), "robomimic", tmp_path / "out") / "set-v0.hdf5"
    assert found(exported).read().notes["feedback"] == {"column": "labels", "of": "episode", "labels": True}


def test_numbers_of_episodes_in_several_files_are_never_used_twice(tmp_path: Path) -> None:
    for name in ("a", "b"):
        robomimic(tmp_path / f"{name}.hdf5", WRITTEN)
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        del file["data/demo_1"]
    assert read(tmp_path).numbers.tolist() == [0, 1, 2, 3, 4, 5, 6]  # a's are 0, 2 and 3


def folders(root: Path, *names: str) -> Path:
    """A folder for each name, with one episode in it."""
    for name in names:
        (root / name).mkdir(parents=True)
        npz(root / name / "a.npz", as_d4rl(experience([len(name)])))
    return root


def test_names_of_sorted_folders(tmp_path: Path) -> None:
    for number, names in enumerate([("thumbs_down", "thumbs_up"), ("neg", "pos"), ("Unsuccessful", "successful")]):
        assert accepted(import_dataset(folders(tmp_path / str(number), *names))) == [-1, 1]
    for name in ("not_successful", "non-expert"):
        assert f"{name}: the name says neither" in refused(read, folders(tmp_path / name, "good", name))
    sound = folders(tmp_path / "sound", "bad", "good")
    (labels := tmp_path / "labels.csv").write_text("episode,label\n0,1\n")
    assert "the folders say what their episodes are" in refused(import_dataset, sound, labels=labels)
    npz(sound / "b.npz", STEPS)
    assert "b.npz lies beside the sorted folders: move it into one of them" in refused(read, sound)
