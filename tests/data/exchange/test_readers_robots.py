"""LeRobot, robomimic and d3rlpy: every value at its step, what ends an episode, success, behaviours and labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl
import pytest
from helpers.aligned import experience
from helpers.foreign import assert_same, found, read
from helpers.robots import (
    LENGTHS,
    accepted,
    at_last,
    both,
    d3rlpy,
    frames_of,
    last_rows,
    lerobot,
    refusal,
    robomimic,
)

from pmpo_offline import data
from pmpo_offline.build.read import import_dataset
from pmpo_offline.data import columns

pytestmark = pytest.mark.filterwarnings("ignore:.*actions reach", "ignore:dropped", "ignore:left out")


# LeRobot


@both
def test_lerobot_as_its_own_evaluation_writes_it(tmp_path: Path, version: str) -> None:
    """The last frame holds the final observation and repeats the rest; an episode is over by success or by time."""
    written = experience(LENGTHS)
    solved = at_last([True, False, False, True])
    frames = frames_of(written, {"next.done": at_last([True] * 4), "next.success": solved}, padded=True)
    recorded = read(lerobot(tmp_path / "set", frames, version))
    assert_same(recorded.experience, written)
    assert recorded.experience.success.tolist() == [True, False, False, True]
    assert recorded.notes["success"] is True
    assert "report" not in recorded.notes


@both
def test_lerobot_recordings_have_no_final_observation(tmp_path: Path, version: str) -> None:
    """Of an episode that was not solved the last frame is a state; of a solved one nothing is valued after it."""
    written = experience(LENGTHS)
    solved = at_last([True, False, False, True])
    path = lerobot(tmp_path / "set", frames_of(written, {"next.success": solved}), version)
    recorded = read(path)
    got, keep = recorded.experience, np.delete(np.arange(10), [3, 7])
    for name in ("observation", "action", "reward"):
        assert np.array_equal(getattr(got, name), getattr(written, name)[keep]), name
    assert got.length.tolist() == [3, 3, 2]
    assert got.terminated.tolist() == [True, False, True]
    assert np.array_equal(got.final_observation, written.observation[[2, 7, 9]])
    assert recorded.numbers is not None
    assert recorded.numbers.tolist() == [0, 2, 3]
    report = recorded.notes["report"]
    assert isinstance(report, dict)
    assert report["dropped"] == {"the last frame of an episode: what followed it is not in the data": 2}


def test_lerobot_without_marks(tmp_path: Path) -> None:
    written = experience(LENGTHS)
    frames = frames_of(written)
    del frames["next.reward"]
    recorded = read(lerobot(tmp_path / "set", frames))
    assert recorded.experience.length.tolist() == [2, 3, 1]
    assert not recorded.experience.terminated.any()
    assert (recorded.notes["rewards"], recorded.notes["success"]) == (False, False)
    done = read(lerobot(tmp_path / "done", frames_of(written, {"next.done": at_last([True, True, False, True])})))
    assert done.experience.length.tolist() == [3, 1, 3, 2]
    assert done.experience.terminated.tolist() == [True, True, False, True]


def test_lerobot_names_what_it_leaves_out_and_the_order_of_the_rest(tmp_path: Path) -> None:
    written = experience(LENGTHS)
    frames = frames_of(written, {"observation.environment_state": written.observation[:, :1] * 2})
    frames["task_index"] = np.array([0, 0, 0, 1, 1, 1, 1, 1, 1, 1])
    recorded = read(lerobot(tmp_path / "set", frames, tasks=("stack", "push")))
    assert recorded.notes["observation_parts"] == {"observation.state": 3, "observation.environment_state": 1}
    assert recorded.experience.observation.shape[1] == 4
    assert recorded.notes["images"] == {
        "observation.images.top": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    }
    assert recorded.notes["tasks"] == {"stack": 1, "push": 2}
    assert recorded.experience.behavior.tolist() == ["stack", "push", "push"]
    assert recorded.notes["fps"] == 20


@both
def test_lerobot_labels_of_recap(tmp_path: Path, version: str) -> None:
    """Flat names, and labels a frame: positive and negative."""
    written = experience(LENGTHS)
    words = np.array(["positive", "negative"] * 5)
    frames = frames_of(written, {"adv_ind": words, "reward_label": np.linspace(-1, 0, 10)})
    renamed = {"observation.state": "state", "action": "actions", "next.reward": "reward"}
    path = lerobot(tmp_path / "set", {renamed.get(name, name): each for name, each in frames.items()}, version)
    dataset = import_dataset(path, home=tmp_path / "home")
    kept = np.delete(np.arange(10), last_rows())
    assert columns.labels(dataset.table).tolist() == [1 if words[row] == "positive" else -1 for row in kept]
    said = dataset.metadata
    assert (str(said.label), said.unit, said.score.settings) == ("column:sign", "step", {"column": "adv_ind"})
    scored = import_dataset(path, score="reward_label", label="column:-0.5", home=tmp_path / "home")
    assert columns.labels(scored.table).tolist() == [1 if row > 4 else -1 for row in kept]
    assert scored.metadata.id == "lerobot/set-0e0ef2fb-v0" or scored.metadata.id.startswith("lerobot/set-")


@both
def test_lerobot_labels_of_episodes(tmp_path: Path, version: str) -> None:
    path = lerobot(tmp_path / "set", frames_of(experience(LENGTHS)), version, verdict=["good", "good", "bad", None])
    dataset = import_dataset(path, score="verdict", home=tmp_path / "home")
    assert (accepted(dataset), dataset.metadata.unit) == ([1, -1, 0], "episode")
    assert "unknown column 'verdikt': did you mean verdict" in refusal(path, "verdikt")


@both
@pytest.mark.parametrize("name", ["success", "is_success", "is_episode_successful"])
def test_lerobot_success_has_other_names(tmp_path: Path, version: str, name: str) -> None:
    solved = np.arange(4) == 2
    frames = frames_of(experience(LENGTHS), {name: np.repeat(solved, LENGTHS)})
    for path in (
        lerobot(tmp_path / "frames", frames, version),
        lerobot(tmp_path / "episodes", frames_of(experience(LENGTHS)), version, **{name: solved.tolist()}),
    ):
        got = found(path).read()
        assert got.notes["success"] is True
        assert got.experience.success.tolist() == [False, True, False]  # the episode of one frame has no step
        assert not got.experience.terminated.any()  # it does not say when
    unknown = lerobot(tmp_path / "unknown", frames_of(experience(LENGTHS)), version, **{name: [None] * 4})
    assert found(unknown).read().notes["success"] is False


@both
def test_lerobot_labels_in_episodes_need_no_score(tmp_path: Path, version: str) -> None:
    path = lerobot(tmp_path / "set", frames_of(experience(LENGTHS)), version, label=["good", "", "bad", "good"])
    dataset = import_dataset(path, home=tmp_path / "home")
    assert accepted(dataset) == [1, -1, 1]
    more = lerobot(tmp_path / "more", frames_of(experience(LENGTHS)), version, operator=["a", "b", "a", "b"])
    assert found(more).read().notes["report"]["columns_not_used"] == ["episodes/operator"]  # type: ignore[index, call-overload]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"next.success": np.full(10, 0.7, np.float32)}, "next.success: expected 0 or 1, found 0.7 in row 0"),
        ({"next.done": np.zeros((10, 2), bool)}, "next.done: expected one number a row, found shape (10, 2)"),
        ({"task_index": np.array(["a"] * 10)}, "set cannot be read, it is damaged: invalid literal for int()"),
        ({"episode_index": np.arange(10) / 4}, "episode_index holds other than whole numbers"),
        ({"next.done": np.arange(10) * 2}, "next.done: expected 0 or 1, found 2 in row 1"),
        ({"label": np.arange(10) > 5, "adv_ind": np.arange(10) > 6}, "label and adv_ind differ: say which one counts"),
        ({"frame_index": np.zeros(10, int)}, "frame_index goes from 0 to 0 in episode 0: frames are missing or there"),
        ({"next.done": np.arange(10) == 4}, "next.done is true in frame 0 of episode 2, which goes on after it"),
        ({"observation.state": np.full((10, 3), np.nan)}, "observation holds NaN or infinite values, first in row 0"),
    ],
    ids=str,
)
def test_lerobot_data_that_cannot_be_read(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    assert message in refusal(lerobot(tmp_path / "set", frames_of(experience(LENGTHS)) | change))


def test_lerobot_folders_that_cannot_be_read(tmp_path: Path) -> None:
    path = lerobot(tmp_path / "set", frames_of(experience(LENGTHS)))
    info = json.loads((path / "meta/info.json").read_text())

    def with_info(**changes: Any) -> str:
        (path / "meta/info.json").write_text(json.dumps({**info, **changes}))
        return refusal(path)

    assert "is of LeRobot's version v1.6: convert it" in with_info(codebase_version="v1.6")
    without = {name: each for name, each in info["features"].items() if not name.startswith("observation.s")}
    assert "has images only: learners here read vectors of numbers" in with_info(features=without)
    (file, *_) = path.glob("data/*/*.parquet")
    (path / "meta/info.json").write_text(json.dumps(info))
    file.write_bytes(file.read_bytes()[:100])
    assert "cannot be read, it is damaged" in refusal(path)
    (path / "meta/info.json").write_text("{")
    assert "info.json cannot be read" in refusal(path)


def test_lerobot_episodes_that_are_not_described_are_refused(tmp_path: Path) -> None:
    """Of a missing one, a search would find its neighbour's verdict."""
    path = lerobot(tmp_path / "set", frames_of(experience(LENGTHS)), "v3.0", verdict=["good", "bad", "good", "bad"])
    (file,) = path.glob("meta/episodes/**/*.parquet")
    whole = pl.read_parquet(file)
    for damaged, said in (
        (whole.filter(pl.col("episode_index") != 1), "lacks episode 1 in meta/episodes"),
        (whole.rename({"episode_index": "index"}), '"episode_index"'),  # as Polars puts it
    ):
        damaged.write_parquet(file)
        assert said in refusal(path, "verdict")


def test_lerobot_videos_of_every_episode_that_is_kept_are_noted(tmp_path: Path) -> None:
    written, camera = experience([1, 3, 2, 4]), "observation.images.top"
    where = {"chunk_index": [0] * 4, "file_index": [0, 0, 1, 1]}
    when = {"from_timestamp": [0.0, 0.05, 0.0, 0.1], "to_timestamp": [0.05, 0.2, 0.1, 0.3]}
    stored = {f"videos/{camera}/{name}": values for name, values in {**where, **when}.items()}
    found = read(lerobot(tmp_path / "v3", frames_of(written), **stored))
    assert found.notes["image_files"] == {  # the first episode has one frame, and what followed it is not in the data
        camera: {
            "path": [f"videos/{camera}/chunk-000/file-{number:03d}.mp4" for number in (0, 1, 1)],
            "from_timestamp": [0.05, 0.0, 0.1],
            "to_timestamp": [0.2, 0.1, 0.3],
        }
    }
    old = lerobot(tmp_path / "v2", frames_of(written), version="v2.1")
    info = json.loads((old / "meta/info.json").read_text())
    info["video_path"] = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    (old / "meta/info.json").write_text(json.dumps({**info, "chunks_size": 2}))
    assert read(old).notes["image_files"] == {
        camera: {"path": [f"videos/chunk-{n // 2:03d}/{camera}/episode_{n:06d}.mp4" for n in (1, 2, 3)]}
    }


def test_lerobot_metadata_that_cannot_be_read(tmp_path: Path) -> None:
    path = lerobot(tmp_path / "set", frames_of(experience(LENGTHS)), "v2.1")
    lines = path / "meta/episodes.jsonl"
    lines.write_text(lines.read_text().replace('"episode_index": 1', '"episode_index": "b"'))
    assert "set cannot be read, it is damaged" in refusal(path)
    info = json.loads((path / "meta/info.json").read_text())
    (path / "meta/info.json").write_text(json.dumps(info | {"features": {"action": 1}}))
    assert "features is no object of objects" in refusal(path)


# robomimic


def sparse(lengths: list[int] = LENGTHS) -> data.Experience:
    """Rewards of 1 in the last step of the first and the last episode, which end there."""
    written = experience(lengths)
    reward = np.zeros(len(written.reward), np.float32)
    solved = np.arange(len(lengths)) % 3 == 0
    reward[np.cumsum(lengths) - 1] = solved
    return data.Experience(**{**vars(written), "reward": reward, "success": solved, "terminated": solved})


LIFT = {"env_name": "Lift", "type": 1, "env_kwargs": {"reward_shaping": False}, "env_version": "1.5.1"}


def test_robomimic_reads_every_value(tmp_path: Path) -> None:
    written = sparse()
    masks = {
        "train": [0, 1],
        "better": [0, 3],
        "okay": [1],
        "20_percent": [0],
        "okay_operator_1": [1],
        "better_train": [0],
    }
    path = robomimic(tmp_path / "low_dim_v15.hdf5", written, masks=masks, env=LIFT)
    recorded = read(path)
    assert_same(recorded.experience, written)
    assert recorded.experience.success.tolist() == [True, False, False, True]
    assert recorded.experience.behavior.tolist() == ["better", "okay+okay_operator_1", "low_dim_v15", "better"]
    assert recorded.notes["observation_parts"] == {"object": 2, "robot0_eef": 1}
    source = found(path)
    assert source.environment is not None
    assert source.environment.id == "robosuite/Lift"


def test_robomimic_machine_generated_layout(tmp_path: Path) -> None:
    """MG: episodes of one length without next_obs, most of them failures, `dones` 0 throughout."""
    written = sparse([5] * 12)
    path = robomimic(tmp_path / "mg.hdf5", written, next_obs=False, env=LIFT, dones=np.zeros(60, int))
    recorded = read(path)
    assert recorded.experience.length.tolist() == [4] * 12
    assert not recorded.experience.terminated.any()
    assert recorded.experience.success.tolist() == written.success.tolist()  # the reward of a dropped row still counts


def test_robomimic_paired_layout(tmp_path: Path) -> None:
    """Can-Paired: the good and the bad half are told by success, or by a mask."""
    written = sparse([2] * 9)
    path = robomimic(tmp_path / "paired.hdf5", written, masks={"good": [0, 3, 6], "bad": [1, 2, 4, 5, 7, 8]}, env=LIFT)
    dataset = import_dataset(path, home=tmp_path / "home")
    assert (str(dataset.metadata.label), accepted(dataset)) == ("success:0.5", [1, -1, -1] * 3)
    masked = import_dataset(path, score="-mask/bad", home=tmp_path / "home")
    assert accepted(masked) == [1, -1, -1] * 3
    assert "unknown mask 'mask/goood': did you mean mask/good" in refusal(path, "mask/goood")
    assert dataset.metadata.task == "robosuite/Lift"


def test_robomimic_success_is_unknown_with_shaped_rewards(tmp_path: Path) -> None:
    written = experience(LENGTHS)
    shaped = {**LIFT, "env_kwargs": {"reward_shaping": True}}
    recorded = read(robomimic(tmp_path / "dense.hdf5", written, env=shaped))
    assert recorded.notes["success"] is False
    assert recorded.experience.terminated.all()  # as `dones` says
    nothing = data.Experience(**{**vars(written), "reward": np.zeros(10, np.float32)})
    assert read(robomimic(tmp_path / "silent.hdf5", nothing)).notes["success"] is False
    assert read(robomimic(tmp_path / "failed.hdf5", nothing, env=LIFT)).notes["success"] is True


def test_robomimic_success_may_be_an_attribute_of_every_episode(tmp_path: Path) -> None:
    path = robomimic(tmp_path / "set.hdf5", experience(LENGTHS))
    with h5py.File(path, "r+") as file:
        for index in range(4):
            file[f"data/demo_{index}"].attrs["success"] = index == 2
    got = found(path).read()
    assert got.notes["success"] is True
    assert got.experience.success.tolist() == [False, False, True, False]
    assert got.experience.terminated.tolist() == [False, False, True, False]
    with h5py.File(path, "r+") as file:
        file["data/demo_2"].attrs["success"] = 0.5
    assert "success: expected 0 or 1, found 0.5" in refusal(path)
    with h5py.File(path, "r+") as file:
        del file["data/demo_2"].attrs["success"]
    assert "success says nothing of 1 episodes, first of number 2: write it of all of them" in refusal(path)


def test_robomimic_images_labels_and_what_is_missing(tmp_path: Path) -> None:
    written = sparse()
    path = robomimic(tmp_path / "set.hdf5", written, image=True, labels=np.array([1, -1] * 5, np.int8))
    dataset = import_dataset(path, home=tmp_path / "home")
    assert dataset.metadata.provenance.settings["images"] == {"agentview_image": "data/demo_*/obs/agentview_image"}
    assert columns.labels(dataset.table).tolist() == [1, -1] * 5
    with h5py.File(path, "a") as file:
        del file["data/demo_2/rewards"]
    assert "demo_2 lacks rewards" in refusal(path)
    with h5py.File(path, "a") as file:
        for demo in file["data"].values():
            del demo["obs"]
    assert "holds no observations: extract them from the states" in refusal(path)


# d3rlpy


def test_d3rlpy_loses_what_its_file_lacks_and_nothing_else(tmp_path: Path) -> None:
    written = experience(LENGTHS)
    recorded = read(d3rlpy(tmp_path / "buffer.h5", written))
    keep = np.delete(np.arange(10), last_rows()[~written.terminated])
    for name in ("observation", "action", "reward"):
        assert np.array_equal(getattr(recorded.experience, name), getattr(written, name)[keep]), name
    assert recorded.experience.length.tolist() == [3, 3, 2]
    assert recorded.experience.terminated.tolist() == [True, False, True]
    report = recorded.notes["report"]
    assert isinstance(report, dict)
    assert (report["rows"], report["episodes_dropped"]) == (10, 1)


def test_d3rlpy_sensors_are_joined_and_images_refused(tmp_path: Path) -> None:
    path = d3rlpy(tmp_path / "buffer.h5", experience([2, 2]))
    with h5py.File(path, "a") as file:
        for index in range(2):
            values = file[f"observations_{index}"][()]
            del file[f"observations_{index}"]
            file[f"observations_{index}_0"], file[f"observations_{index}_1"] = values[:, :2], values[:, 2:]
    assert np.array_equal(read(path).experience.observation[0], experience([2, 2]).observation[0])
    with h5py.File(path, "a") as file:
        del file["observations_0_1"], file["actions_1"]
    assert "lacks actions_1: it is incomplete" in refusal(path)
    with h5py.File(path, "a") as file:
        file["observations_0_1"] = np.zeros((2, 8, 8, 3), np.uint8)
    assert "observations_0 has a sensor of shape (2, 8, 8, 3), and images are not supported" in refusal(path)


@pytest.mark.parametrize("name", ["observations", "actions", "rewards"])
def test_d3rlpy_episodes_whose_arrays_are_of_different_lengths_are_refused(tmp_path: Path, name: str) -> None:
    """Also where they make up for one another, and the rows after them would be those of other steps."""
    path = d3rlpy(tmp_path / "buffer.h5", experience(LENGTHS))
    with h5py.File(path, "a") as file:
        first, third = file[f"{name}_0"][()], file[f"{name}_2"][()]
        del file[f"{name}_0"], file[f"{name}_2"]
        file[f"{name}_0"], file[f"{name}_2"] = first[:-1], np.concatenate([third, third[-1:]])
    assert f"episode 0 has other numbers of {'observations' if name == 'actions' else name} and actions" in refusal(
        path
    )


@pytest.mark.parametrize("count", [np.nan, "x", [4, 4]])
def test_d3rlpy_counts_of_episodes_that_are_none(tmp_path: Path, count: Any) -> None:
    path = d3rlpy(tmp_path / "buffer.h5", experience(LENGTHS))
    with h5py.File(path, "a") as file:
        del file["num_episodes"]
        file["num_episodes"] = count
    assert "cannot be read, it is damaged or no .h5 file" in refusal(path)
