"""To LeRobot: its layout of version 3.0.

meta/info.json                                 features, counts, fps, where the files are
meta/stats.json                                least, greatest, mean, deviation and count of each feature
meta/tasks.parquet                             one task, with index 0
meta/episodes/chunk-000/file-000.parquet       rows and file of each episode, its statistics; beside LeRobot's columns
                                               ours: final_observation, return, success, behavior, seed, score, label
data/chunk-000/file-000.parquet                one row a frame, files of some 100 MB cut between episodes

A frame holds what was seen, what was done, and what followed: observation.state, action, next.reward, next.done,
next.success (the episode's, on its last frame), score (NaN where absent) and label (+1, −1, 0 unlabelled). LeRobot has
no frame after the last action: what was observed then is the episode's final_observation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pmpo_offline.data import Dataset, columns
from pmpo_offline.data.exchange.writers import Writer
from pmpo_offline.data.exchange.writers.parquet import BLOCK, write_parts
from pmpo_offline.runtime import progress

NOTE = (
    "A frame a step: what followed it is `next.reward` and `next.done`, the next observation is the next frame's, and "
    "at the end of an episode `final_observation` in `meta/episodes`. `label` is 1 for accept, -1 for reject and 0 "
    "where unlabelled; an absent `score` is NaN. Times are steps divided by fps."
)
_VERSION = "v3.0"
_PATH = "chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_CHUNK, _FILE_MB = 1000, 100  # files a folder, megabytes a file


def write(folder: Path, dataset: Dataset, fps: int = 20) -> None:
    """Write the dataset into `folder`, with `fps` steps to a second."""
    start = columns.vector(dataset.episodes, "start")
    end = start + columns.vector(dataset.episodes, "length")
    file = _files(end, max(1, _FILE_MB * 2**20 * len(dataset) // dataset.table.nbytes))
    for index in range(int(file[-1]) + 1):
        here = np.flatnonzero(file == index)
        path = folder / "data" / _PATH.format(chunk_index=index // _CHUNK, file_index=index % _CHUNK)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_parts(path, _frames(dataset, int(start[here[0]]), int(end[here[-1]]), fps))
    features = _features(dataset)
    _write_episodes(folder, dataset, file, {name: _statistics(values, start) for name, values in features.items()})
    whole = {name: _statistics(values, start[:1]) for name, values in features.items()}
    overall = {name: {kind: value[0].tolist() for kind, value in each.items()} for name, each in whole.items()}
    _write_json(folder / "meta/stats.json", overall)
    _write_json(folder / "meta/info.json", _info(dataset, fps))
    _write_tasks(folder, dataset.metadata.task)


def _files(end: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """Return the file (E,) of every episode: files of about `rows` rows, none of them empty."""
    cut: NDArray[np.int64] = (end - 1) // rows
    return np.unique(cut, return_inverse=True)[1]


def _frames(dataset: Dataset, first: int, end: int, fps: int) -> Iterator[pa.Table]:
    success = columns.vector(dataset.episodes, "success")
    for start in range(first, end, BLOCK):
        steps = dataset.table.slice(start, min(BLOCK, end - start))
        step, episode = columns.vector(steps, "step"), columns.vector(steps, "episode")
        done = columns.vector(steps, "terminated") | columns.vector(steps, "truncated")
        yield pa.table(
            {
                "observation.state": _vectors(columns.matrix(steps, "observation")),
                "action": _vectors(columns.matrix(steps, "action")),
                "next.reward": columns.vector(steps, "reward"),
                "next.done": done,
                "next.success": done & success[episode],
                "score": columns.vector(steps, "score"),
                "label": columns.labels(steps).astype(np.int64),
                "timestamp": (step / fps).astype(np.float32),
                "frame_index": step.astype(np.int64),
                "episode_index": episode.astype(np.int64),
                "index": np.arange(start, start + len(step)),
                "task_index": np.zeros(len(step), np.int64),
            }
        )
        progress.report("write rows", start + len(step), len(dataset))


def _vectors(values: NDArray[np.float32]) -> pa.Array:
    """Return (n, width) as LeRobot stores it: lists, or plain numbers if the width is 1."""
    return columns.list_array(values) if values.shape[1] > 1 else pa.array(values[:, 0])


def _features(dataset: Dataset) -> dict[str, NDArray[np.float32]]:
    """Return the columns (N, ·) that statistics are of."""
    steps = dataset.table
    return {
        "observation.state": columns.matrix(steps, "observation"),
        "action": columns.matrix(steps, "action"),
        "next.reward": columns.vector(steps, "reward")[:, None],
    }


def _statistics(values: NDArray[np.float32], start: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Return min, max, mean, std (E, ·) and count (E, 1) of the rows from each start to the next."""
    count = np.diff(start, append=len(values))
    columnwise: dict[str, list[NDArray[np.float64]]] = {"min": [], "max": [], "mean": [], "std": []}
    for column in values.T:  # one by one, to limit the memory
        mean = np.add.reduceat(column, start, dtype=np.float64) / count
        variance = np.add.reduceat((column - np.repeat(mean, count)) ** 2, start) / count
        found = (np.minimum.reduceat(column, start), np.maximum.reduceat(column, start), mean, np.sqrt(variance))
        for kind, each in zip(columnwise.values(), found, strict=True):
            kind.append(each.astype(np.float64))
    return {name: np.stack(each, axis=1) for name, each in columnwise.items()} | {"count": count[:, None]}


def _write_episodes(
    folder: Path, dataset: Dataset, file: NDArray[np.int64], stats: dict[str, dict[str, NDArray[Any]]]
) -> None:
    episodes = dataset.episodes
    if episodes is None:
        return
    start, length = columns.vector(episodes, "start"), columns.vector(episodes, "length").astype(np.int64)
    here = np.zeros(len(start), np.int64)
    ours = ("final_observation", "return", "success", "terminated", "behavior", "seed", "score", "label")
    content = {
        "episode_index": np.arange(len(start)),
        "tasks": pa.array([[dataset.metadata.task]] * len(start)),
        "length": length,
        "data/chunk_index": file // _CHUNK,
        "data/file_index": file % _CHUNK,
        "dataset_from_index": start,
        "dataset_to_index": start + length,
        "meta/episodes/chunk_index": here,
        "meta/episodes/file_index": here,
        **{name: episodes.column(name) for name in ours},
        **{
            f"stats/{name}/{kind}": pa.array(list(values))
            for name, each in stats.items()
            for kind, values in each.items()
        },
    }
    path = folder / "meta/episodes" / _PATH.format(chunk_index=0, file_index=0)
    path.parent.mkdir(parents=True)
    write_parts(path, [pa.table(content)])


def _info(dataset: Dataset, fps: int) -> dict[str, Any]:
    steps, counts = dataset.table.schema, dataset.metadata.counts
    widths = {name: steps.field(name).type.list_size for name in ("observation", "action")}
    vectors = {"observation.state": widths["observation"], "action": widths["action"]}
    scalars = {"next.reward": "float32", "next.done": "bool", "next.success": "bool"}
    scalars |= {"score": "float32", "label": "int64", "timestamp": "float32"}
    scalars |= dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), "int64")
    features = {name: _feature("float32", width) for name, width in vectors.items()}
    features |= {name: _feature(dtype, 1) for name, dtype in scalars.items()}
    return {
        "codebase_version": _VERSION,
        "robot_type": None,
        "total_episodes": counts.episodes,
        "total_frames": counts.rows,
        "total_tasks": 1,
        "chunks_size": _CHUNK,
        "data_files_size_in_mb": _FILE_MB,
        "video_files_size_in_mb": 500,
        "fps": fps,
        "splits": {"train": f"0:{counts.episodes}"},
        "data_path": f"data/{_PATH}",
        "video_path": None,
        "features": features,
    }


def _feature(dtype: str, width: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [width], "names": None}


def _write_tasks(folder: Path, task: str) -> None:
    """Write the table of tasks; pandas reads the column `task` as its index."""
    kinds = {"task_index": ("int64", "int64"), "task": ("unicode", "object")}
    described = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": dtype, "metadata": None}
        for name, (kind, dtype) in kinds.items()
    ]
    index = {"index_columns": ["task"], "column_indexes": [], "columns": described, "pandas_version": "2.0.0"}
    table = pa.table({"task_index": pa.array([0], pa.int64()), "task": [task]})
    write_parts(folder / "meta/tasks.parquet", [table.replace_schema_metadata({"pandas": json.dumps(index)})])


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")


def loading(dataset: Dataset) -> list[str]:
    """Return the lines of Python that open it."""
    return [
        "from lerobot.datasets.lerobot_dataset import LeRobotDataset",
        f'dataset = LeRobotDataset("{dataset.metadata.id.rpartition("/")[2]}", root="path/of/this/folder")',
    ]


LEROBOT = Writer(
    "LeRobot's layout 3.0; frames have times (`--fps`)", write, loading, NOTE, kinds=("transitions",), options=("fps",)
)
