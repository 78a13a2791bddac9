"""Our exports in robomimic's and LeRobot's own readers, continuous and discrete, and LeRobot's own files in ours.

Each is skipped where the library is not installed (README.md).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.aligned import LENGTHS, Columns, assert_aligned, expected, experience, indices, stored
from helpers.labelled import saved

from pmpo_offline import data
from pmpo_offline.data.exchange import export_dataset
from pmpo_offline.data.exchange.readers import open_source

DISCRETE = [3, 1, 4]


def discrete(folder: Path) -> data.Dataset:
    """Return steps with three actions to choose from."""
    _, step = indices(DISCRETE)
    chosen = (step[:, None] % 3).astype(np.int32)
    return saved(folder / "set", *replace(experience(DISCRETE), action=chosen).tables(), "success", actions=3)


def robomimic_rows(dataset: data.Dataset, folder: Path, **options: object) -> Columns:
    """Return all rows as robomimic's training draws them, in order, from an export."""
    dataset_module = pytest.importorskip("robomimic.utils.dataset")
    path = next(export_dataset(dataset, "robomimic", folder).glob("*.hdf5"))
    keys = ("actions", "rewards", "dones", "labels")
    options = {"hdf5_cache_mode": None, "load_next_obs": True, **options}
    rows = dataset_module.SequenceDataset(str(path), obs_keys=("state",), dataset_keys=keys, **options)
    drawn = [rows[index] for index in range(len(rows))]
    order = np.argsort(
        [rows._index_to_demo_id[i].removeprefix("demo_").zfill(9) for i in range(len(rows))], kind="stable"
    )
    found = {name: np.concatenate([each[name] for each in drawn])[order] for name in keys}
    seen = {name: np.concatenate([each[name]["state"] for each in drawn])[order] for name in ("obs", "next_obs")}
    return found | seen


@pytest.mark.parametrize("lengths", [[1, 1, 1], [2, 300, 1], [1 + index % 3 for index in range(1_200)]])
def test_robomimic_finds_every_row(tmp_path: Path, lengths: list[int]) -> None:
    """Its items are our rows, next observations included."""
    found = robomimic_rows(stored(tmp_path, lengths), tmp_path / "out")
    names = {"observation": "obs", "next_observation": "next_obs", "action": "actions", "reward": "rewards"}
    assert_aligned({name: found[theirs] for name, theirs in names.items()}, lengths)
    due = expected(lengths)
    assert (found["dones"] == (due["terminated"] | due["truncated"])).all()


def test_robomimic_chooses_the_accepted_episodes(tmp_path: Path) -> None:
    """Its filter takes the episodes of a mask."""
    dataset = saved(tmp_path / "set", *experience([2, 5, 1, 4]).tables(), "success")
    accepted = robomimic_rows(dataset, tmp_path / "out", filter_by_attribute="accepted", hdf5_cache_mode="all")
    assert accepted["labels"].tolist() == [1] * 6
    assert accepted["rewards"].tolist() == [expected([2, 5, 1, 4])["reward"][row] for row in (0, 1, 8, 9, 10, 11)]


def test_robomimic_has_discrete_actions(tmp_path: Path) -> None:
    """They stay whole numbers."""
    dataset = discrete(tmp_path)
    found = robomimic_rows(dataset, tmp_path / "out")
    assert found["actions"].dtype.kind == "i"
    assert (found["actions"] == data.columns.matrix(dataset.table, "action")).all()


def test_robomimic_knows_the_shapes_and_the_environment(tmp_path: Path) -> None:
    """What its `train.py` asks of a file before anything else."""
    file_utils = pytest.importorskip("robomimic.utils.file_utils")
    observations = pytest.importorskip("robomimic.utils.obs_utils")
    observations.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": ["state"]}})
    path = str(next(export_dataset(stored(tmp_path, [2, 3]), "robomimic", tmp_path / "out").glob("*.hdf5")))
    shapes = file_utils.get_shape_metadata_from_dataset(path, all_obs_keys=["state"])
    assert (shapes["ac_dim"], shapes["all_shapes"]) == (2, {"state": [3]})
    assert file_utils.get_env_metadata_from_dataset(path)["env_name"]


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
def test_lerobot_finds_every_row(tmp_path: Path, lengths: list[int]) -> None:
    """Its frames are our rows."""
    lerobot = pytest.importorskip("lerobot.datasets.lerobot_dataset")
    frames = lerobot.LeRobotDataset(
        "test/set", root=export_dataset(stored(tmp_path, lengths), "lerobot", tmp_path / "out")
    )
    assert frames.num_episodes == len(lengths)
    found = frames.hf_dataset.with_format("numpy")[:]
    names = {"observation": "observation.state", "action": "action", "reward": "next.reward"}
    assert_aligned({name: found[theirs] for name, theirs in names.items()}, lengths)
    due = expected(lengths)
    assert (found["next.done"] == (due["terminated"] | due["truncated"])).all()
    first = frames[len(frames) - lengths[-1]]
    assert first["observation.state"].tolist() == due["observation"][-lengths[-1]].tolist()


def test_lerobot_chooses_episodes_and_what_came_before(tmp_path: Path) -> None:
    """It finds an episode's rows by our table of episodes, and earlier frames by our timestamps."""
    lerobot = pytest.importorskip("lerobot.datasets.lerobot_dataset")
    folder = export_dataset(stored(tmp_path, [2, 5, 3]), "lerobot", tmp_path / "out")
    before = {"observation.state": [-1 / 20, 0.0]}
    chosen = lerobot.LeRobotDataset("test/set", root=folder, episodes=[1], delta_timestamps=before)
    assert len(chosen) == 5
    assert chosen[3]["observation.state"].numpy().tolist() == expected([2, 5, 3])["observation"][4:6].tolist()


def test_lerobot_has_discrete_actions(tmp_path: Path) -> None:
    """They stay whole numbers."""
    lerobot = pytest.importorskip("lerobot.datasets.lerobot_dataset")
    dataset = discrete(tmp_path)
    frames = lerobot.LeRobotDataset("test/set", root=export_dataset(dataset, "lerobot", tmp_path / "out"))
    found = [int(frames[row]["action"]) for row in range(len(frames))]
    assert found == data.columns.matrix(dataset.table, "action")[:, 0].tolist()


@pytest.mark.filterwarnings("ignore:Converting input from bool")
def test_what_lerobot_records_is_read(tmp_path: Path) -> None:
    """Every episode is ended by success here, so that no last frame is dropped."""
    lerobot = pytest.importorskip("lerobot.datasets.lerobot_dataset")
    lengths = [3, 1, 4]
    wanted = expected(lengths)
    last = wanted["terminated"] | wanted["truncated"]
    values = {"observation.state": wanted["observation"], "action": wanted["action"], "next.success": last[:, None]}
    features = {
        name: {"dtype": str(column.dtype), "shape": column.shape[1:], "names": None} for name, column in values.items()
    }
    recorded = lerobot.LeRobotDataset.create("test/set", 20, features, root=tmp_path / "set", use_videos=False)
    for row in range(sum(lengths)):
        recorded.add_frame({"task": "reach", **{name: column[row] for name, column in values.items()}})
        if last[row]:
            recorded.save_episode()
    recorded.finalize()
    found = open_source(str(tmp_path / "set")).read().experience
    assert found.length.tolist() == lengths
    assert found.success.all()
    assert_aligned({"observation": found.observation, "action": found.action}, lengths)
