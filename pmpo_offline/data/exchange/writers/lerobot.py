"""To LeRobot: its layout of version 3.0.

meta/info.json                                 features, counts, fps, where the files are
meta/stats.json                                least, greatest, mean, deviation and count of each feature
meta/tasks.parquet                             one task, with index 0
meta/episodes/chunk-000/file-000.parquet       rows and file of each episode, its statistics; beside LeRobot's columns
                                               the rest of ours: final_observation, return, success, behavior, …
data/chunk-000/file-000.parquet                one row a frame, files of some 100 MB cut between episodes

A frame holds what was seen, what was done, and what followed: observation.state, action, next.reward, next.done,
next.success (the episode's, on its last frame, where it is known), score (NaN where absent) and label (+1, −1,
0 unlabelled). LeRobot has no frame after the last action: what was observed then is the episode's final_observation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pmpo_offline.data import Dataset, columns
from pmpo_offline.data.exchange.writers import Writer
from pmpo_offline.data.exchange.writers.parquet import BLOCK, write_tables
from pmpo_offline.runtime import progress

_CHUNK, _FILE_MB = 1000, 100  # files a folder, megabytes a file
FEATURES = {"observation": "observation.state", "action": "action", "reward": "next.reward"}
"""LeRobot's names of the columns that it has statistics of."""


def write(folder: Path, dataset: Dataset, fps: int = 20) -> None:
    """Write the dataset into `folder`, with `fps` steps to a second."""
    start = columns.vector(dataset.episodes, "start")
    end = start + columns.vector(dataset.episodes, "length")
    file = _files(end, max(1, _FILE_MB * 2**20 * len(dataset) // dataset.table.nbytes))
    for index in range(int(file[-1]) + 1):
        here = np.flatnonzero(file == index)
        frames = _frames(dataset, int(start[here[0]]), int(end[here[-1]]), fps)
        write_tables(folder / f"data/chunk-{index // _CHUNK:03d}/file-{index % _CHUNK:03d}.parquet", frames)
    stats = _statistics(dataset)
    write_tables(folder / "meta/episodes/chunk-000/file-000.parquet", [_episodes(dataset, file, stats)])
    contents = {
        "stats": {name: _overall(found) for name, found in stats.items()},
        "info": _info(dataset, fps, pq.read_schema(folder / "data/chunk-000/file-000.parquet")),
    }
    for name, content in contents.items():
        (folder / f"meta/{name}.json").write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
    _write_tasks(folder, dataset.metadata.task)


def _files(end: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """Return the file (E,) of every episode: files of about `rows` rows, none of them empty."""
    cut: NDArray[np.int64] = (end - 1) // rows
    return np.unique(cut, return_inverse=True)[1]


def _frames(dataset: Dataset, first: int, end: int, fps: int) -> Iterator[pa.Table]:
    success, known = columns.vector(dataset.episodes, "success"), "success" not in dataset.unknown
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
                **({"next.success": done & success[episode]} if known else {}),
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


def _statistics(dataset: Dataset) -> dict[str, dict[str, NDArray[Any]]]:
    """Return min, max, mean, std (E, width) and count (E, 1) of every feature over the steps of each episode."""
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in FEATURES}
    for _, starts, values in columns.groups(dataset.table, dataset.others["episodes"], *FEATURES):
        start, count = starts[:-1], np.diff(starts)
        for name, rows in values.items():
            own = np.empty((4, len(start), rows[0].size))
            for index, column in enumerate(rows.reshape(len(rows), -1).T):  # one by one, to limit the memory
                mean = np.add.reduceat(column, start, dtype=np.float64) / count
                variance = np.add.reduceat((column - np.repeat(mean, count)) ** 2, start) / count
                least, greatest = np.minimum.reduceat(column, start), np.maximum.reduceat(column, start)
                own[:, :, index] = least, greatest, mean, np.sqrt(variance)
            found[name].append(own)
    count = columns.vector(dataset.episodes, "length").astype(np.int64)[:, None]
    return {
        FEATURES[name]: dict(zip(("min", "max", "mean", "std"), np.concatenate(parts, 1), strict=True))
        | {"count": count}
        for name, parts in found.items()
    }


def _overall(stats: dict[str, NDArray[Any]]) -> dict[str, list[Any]]:
    """Return min, max, mean, std and count of a feature over all steps, of those of the episodes, as LeRobot does."""
    share = stats["count"] / stats["count"].sum()
    mean = (share * stats["mean"]).sum(axis=0)
    variance = (share * (stats["std"] ** 2 + (stats["mean"] - mean) ** 2)).sum(axis=0)
    found = {"min": stats["min"].min(axis=0), "max": stats["max"].max(axis=0), "mean": mean, "std": np.sqrt(variance)}
    return {kind: values.tolist() for kind, values in found.items()} | {"count": [int(stats["count"].sum())]}


def _episodes(dataset: Dataset, file: NDArray[np.int64], stats: dict[str, dict[str, NDArray[Any]]]) -> pa.Table:
    """Return a row an episode: its rows, its file, our columns and its statistics."""
    episodes = dataset.others["episodes"]
    start, length = columns.vector(episodes, "start"), columns.vector(episodes, "length").astype(np.int64)
    here = np.zeros(len(start), np.int64)
    if "success" in dataset.unknown:
        episodes = columns.replace(episodes, success=pa.nulls(episodes.num_rows, pa.bool_()))
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
        **{name: episodes.column(name) for name in episodes.column_names if name not in ("start", "length")},
    }
    for name, kinds in stats.items():
        content |= {f"stats/{name}/{kind}": pa.array(list(values)) for kind, values in kinds.items()}
    return pa.table(content)


def _info(dataset: Dataset, fps: int, frames: pa.Schema) -> dict[str, Any]:
    """Return the content of meta/info.json; `frames` is the schema of the files of data."""
    features = {}
    for field in frames:
        is_list = pa.types.is_fixed_size_list(field.type)
        kind, width = (field.type.value_type, field.type.list_size) if is_list else (field.type, 1)
        features[field.name] = {"dtype": str(np.dtype(kind.to_pandas_dtype())), "shape": [width], "names": None}
    return {
        "codebase_version": "v3.0",
        "robot_type": None,
        "total_episodes": dataset.metadata.counts.episodes,
        "total_frames": len(dataset),
        "total_tasks": 1,
        "chunks_size": _CHUNK,
        "data_files_size_in_mb": _FILE_MB,
        "video_files_size_in_mb": 500,
        "fps": fps,
        "splits": {"train": f"0:{dataset.metadata.counts.episodes}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": None,
        "features": features,
    }


def _write_tasks(folder: Path, task: str) -> None:
    """Write the table of tasks; pandas reads the column `task` as its index."""
    described = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": dtype, "metadata": None}
        for name, kind, dtype in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    ]
    index = {"index_columns": ["task"], "column_indexes": [], "columns": described, "pandas_version": "2.0.0"}
    table = pa.table({"task_index": pa.array([0], pa.int64()), "task": [task]})
    write_tables(folder / "meta/tasks.parquet", [table.replace_schema_metadata({"pandas": json.dumps(index)})])


LEROBOT = Writer(
    "LeRobot's layout 3.0; frames have times (`--fps`)",
    write,
    lambda dataset: [
        "from lerobot.datasets.lerobot_dataset import LeRobotDataset",
        f'dataset = LeRobotDataset("{dataset.metadata.id.rpartition("/")[2]}", root="path/of/this/folder")',
    ],
    "A frame a step: what followed it is `next.reward` and `next.done`, the next observation is the next frame's, and "
    "at the end of an episode `final_observation` in `meta/episodes`. `label` is 1 for accept, -1 for reject and 0 "
    "where unlabelled; an absent `score` is NaN. Times are steps divided by fps.",
    kinds=("transitions",),
    data_files=lambda dataset: {"default": "data/*/*.parquet", "episodes": "meta/episodes/*/*.parquet"},
    discrete=True,
    options=("fps",),
)
