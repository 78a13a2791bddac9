"""Robot data as LeRobot, robomimic and d3rlpy lay it out, of aligned experience."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.foreign import episodes, found
from pmpo_offline import data
from pmpo_offline.data import Experience, columns
from pmpo_offline.runtime.errors import UserError

Columns = Mapping[str, Any]


LENGTHS = [3, 1, 4, 2]
VERSIONS = ["v2.1", "v3.0"]
both = pytest.mark.parametrize("version", VERSIONS)


def last_rows(lengths: list[int] = LENGTHS) -> np.ndarray:
    return np.cumsum(lengths) - 1


def at_last(flags: list[bool]) -> np.ndarray:
    """Steps (N,), true in the last one of the episodes with a flag."""
    steps = np.zeros(sum(LENGTHS), bool)
    steps[last_rows()] = flags
    return steps


def refusal(path: Path, column: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        found(path).read(*([column] if column else []))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def accepted(dataset: data.Dataset) -> list[int]:
    return columns.labels(dataset.episodes).tolist()


def frames_of(written: Experience, more: Columns | None = None, padded: bool = False) -> dict[str, Any]:
    """The columns of LeRobot's frames, `more` of them a value a step; `padded`: as lerobot-eval, T+1 frames an episode.

    A padded frame repeats every column but the observation.
    """
    steps = {
        "action": written.action,
        "next.reward": written.reward,
        "episode_index": np.repeat(np.arange(len(written.length)), written.length),
        "task_index": np.zeros(len(written.reward), np.int64),
        **(more or {}),
    }
    if not padded:
        columns = {"observation.state": written.observation, **steps}
    else:
        parts = list(episodes(written))
        repeat = [np.append(np.arange(rows.start, rows.stop), rows.stop - 1) for rows, _ in parts]
        taken = np.concatenate(repeat)
        columns = {name: np.asarray(values)[taken] for name, values in steps.items()}
        columns["observation.state"] = np.concatenate([observed for _, observed in parts])
    episode = columns["episode_index"]
    frame = np.arange(len(episode)) - np.searchsorted(episode, episode)
    return {**columns, "frame_index": frame, "index": np.arange(len(episode)), "timestamp": frame / np.float32(20)}


def lerobot(
    folder: Path, frames: Columns, version: str = "v3.0", tasks: tuple[str, ...] = ("stack",), **episode: Any
) -> Path:
    """Write frames as a data set of LeRobot with a camera in its features; `episode`: more columns of meta/episodes."""
    features: dict[str, Any] = {
        name: {
            "dtype": str(np.asarray(values).dtype),
            "shape": list(np.asarray(values).shape[1:]) or [1],
            "names": None,
        }
        for name, values in frames.items()
    }
    features["observation.images.top"] = {"dtype": "video", "shape": [96, 96, 3], "names": None}
    index, starts = np.unique(frames["episode_index"], return_index=True)
    length = np.diff(starts, append=len(frames["episode_index"]))
    table = pa.table({name: list(values) if np.ndim(values) > 1 else values for name, values in frames.items()})
    described = [
        {
            "episode_index": int(e),
            "tasks": list(tasks[:1]),
            "length": int(n),
            **{key: each[i] for key, each in episode.items()},
        }
        for i, (e, n) in enumerate(zip(index, length, strict=True))
    ]
    (folder / "meta").mkdir(parents=True)
    if version.startswith("v2"):
        data_path = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
        (folder / "data/chunk-000").mkdir(parents=True)
        for e, start, n in zip(index, starts, length, strict=True):
            pq.write_table(table.slice(start, n), folder / data_path.format(episode_chunk=0, episode_index=e))
        lines = {"episodes": described, "tasks": [{"task_index": i, "task": task} for i, task in enumerate(tasks)]}
        for name, rows in lines.items():
            (folder / f"meta/{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        data_path = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
        for name in ("data/chunk-000", "meta/episodes/chunk-000"):
            (folder / name).mkdir(parents=True)
        half = int(starts[len(starts) // 2])  # two files
        for number, part in enumerate((table.slice(0, half), table.slice(half)) if half else (table,)):
            pq.write_table(part, folder / data_path.format(chunk_index=0, file_index=number))
        pq.write_table(pa.Table.from_pylist(described), folder / "meta/episodes/chunk-000/file-000.parquet")
        pq.write_table(
            pa.table({"task_index": np.arange(len(tasks)), "__index_level_0__": list(tasks)}),
            folder / "meta/tasks.parquet",
        )
    info = {
        "codebase_version": version,
        "robot_type": "so101",
        "fps": 20,
        "features": features,
        "data_path": data_path,
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "total_episodes": len(index),
        "total_frames": len(table),
    }
    (folder / "meta/info.json").write_text(json.dumps(info))
    return folder


def robomimic(
    path: Path,
    written: Experience,
    *,
    masks: Mapping[str, list[int]] | None = None,
    next_obs: bool = True,
    image: bool = False,
    env: Mapping[str, Any] | None = None,
    dones: np.ndarray | None = None,
    **more: np.ndarray,
) -> Path:
    """Write robomimic's layout: two observations (`object` holds the first two numbers, `robot0_eef` the last)."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = len(written.reward)
        if env is not None:
            data.attrs["env_args"] = json.dumps(env)
        for index, (rows, observed) in enumerate(episodes(written)):
            demo = data.create_group(f"demo_{index}")
            demo.attrs["num_samples"] = rows.stop - rows.start
            for name, values in (("obs", observed[:-1]), ("next_obs", observed[1:])):
                if name == "obs" or next_obs:
                    demo[f"{name}/robot0_eef"] = values[:, 2:].astype(np.float64)
                    demo[f"{name}/object"] = values[:, :2].astype(np.float64)
                    if image:
                        demo[f"{name}/agentview_image"] = np.zeros((len(values), 8, 8, 3), np.uint8)
            demo["actions"] = written.action[rows].astype(np.float64)
            demo["rewards"] = written.reward[rows].astype(np.float64)
            demo["dones"] = (
                (np.arange(rows.start, rows.stop) == rows.stop - 1).astype(int) if dones is None else dones[rows]
            )
            for name, values in more.items():
                demo[name] = values[rows]
        for name, members in (masks or {}).items():
            file[f"mask/{name}"] = [f"demo_{index}".encode() for index in members]
    return path


def d3rlpy(path: Path, written: Experience) -> Path:
    """Write what d3rlpy 2.8's `dump` writes of these episodes."""
    with h5py.File(path, "w") as file:
        file.create_dataset("columns", data=["observations", "actions", "rewards", "terminated"])
        file.create_dataset("num_episodes", data=len(written.length))
        for index, (rows, _) in enumerate(episodes(written)):
            file.create_dataset(f"observations_{index}", data=written.observation[rows])
            file.create_dataset(f"actions_{index}", data=written.action[rows])
            file.create_dataset(f"rewards_{index}", data=written.reward[rows, None])
            file.create_dataset(f"terminated_{index}", data=written.terminated[index])
        file.create_dataset("version", data="2.1")
    return path
