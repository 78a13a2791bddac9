"""The HDF5 form: transitions as a Minari directory that stock Minari opens, other tables as flat row-aligned files.

data/metadata.json       what Minari wants to know, made from dataset.json
data/main_data.hdf5      episode_<i>/  observations (T+1, O): the last one is final_observation
                                       actions (T, A), rewards, terminations, truncations (T,)
                                       infos/score (T,): NaN where absent, infos/label (T,): +1, −1, 0 unlabelled
                                       attributes: id, total_steps, and the other columns of episodes
candidates.hdf5          row (N,), action (N, A), score (N,), label (N,)
responses.hdf5           the columns of responses, text as UTF-8 strings
"""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pmpo_offline.data import columns
from pmpo_offline.data.schema import Metadata, candidates_schema, episodes_schema, responses_schema, transitions_schema

_MINARI_VERSION = "0.5.3"  # of the format: readers from 0.5.3 on hold it in their list of supported versions
_STEPS = {"reward": "rewards", "terminated": "terminations", "truncated": "truncations"}
_ATTRIBUTES = ("return", "success", "terminated", "behavior", "seed", "score", "label", "split")


def write(directory: Path, metadata: Metadata, tables: dict[str, pa.Table]) -> None:
    """Write the tables into `directory`; raises `OSError` where the disk refuses."""
    try:
        if "transitions" in tables:
            (directory / "data").mkdir()
            with h5py.File(directory / "data/main_data.hdf5", "w", track_order=False) as file:
                _write_episodes(file, tables["transitions"], tables["episodes"])
            size = (directory / "data/main_data.hdf5").stat().st_size
            described = _minari_metadata(metadata, tables, size)
            (directory / "data/metadata.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        for name in tables.keys() - {"transitions", "episodes"}:
            with h5py.File(directory / f"{name}.hdf5", "w") as file:
                _write_flat(file, tables[name])
    except RuntimeError as error:  # what HDF5 raises when its cache cannot be flushed as a file closes
        raise OSError(errno.EIO, f"HDF5: {error}") from error


def read(directory: Path, metadata: Metadata) -> dict[str, pa.Table]:
    """Read tables equal to those of the Arrow form."""
    tables = {}
    if "data/main_data.hdf5" in metadata.files:
        with h5py.File(directory / "data/main_data.hdf5") as file:
            tables["transitions"], tables["episodes"] = _read_episodes(file, metadata.counts.episodes)
    for name in ("candidates", "responses"):
        if f"{name}.hdf5" in metadata.files:
            with h5py.File(directory / f"{name}.hdf5") as file:
                tables[name] = _read_flat(file, name)
    return tables


def _write_episodes(file: h5py.File, steps: pa.Table, episodes: pa.Table) -> None:
    observations, finals = columns.matrix(steps, "observation"), columns.matrix(episodes, "final_observation")
    actions, scores, labels = columns.matrix(steps, "action"), columns.vector(steps, "score"), columns.labels(steps)
    vectors = {name: columns.vector(steps, column) for column, name in _STEPS.items()}
    starts, lengths = columns.vector(episodes, "start"), columns.vector(episodes, "length")
    for index, attributes in enumerate(episodes.select(_ATTRIBUTES).to_pylist()):
        rows = slice(starts[index], starts[index] + lengths[index])
        group = file.create_group(f"episode_{index}")
        group.create_dataset("observations", data=np.concatenate([observations[rows], finals[index : index + 1]]))
        group.create_dataset("actions", data=actions[rows])
        for name, values in vectors.items():
            group.create_dataset(name, data=values[rows])
        infos = group.create_group("infos")
        infos.create_dataset("score", data=scores[rows])
        infos.create_dataset("label", data=labels[rows])
        group.attrs.update({"id": index, "total_steps": int(lengths[index])})
        group.attrs.update({name: value for name, value in attributes.items() if value is not None})


def _read_episodes(file: h5py.File, count: int) -> tuple[pa.Table, pa.Table]:
    groups = [file[f"episode_{index}"] for index in range(count)]
    attributes = [dict(group.attrs) for group in groups]
    lengths = np.array([each["total_steps"] for each in attributes], np.int64)
    starts = np.cumsum(lengths) - lengths
    rows = int(lengths.sum())
    width, action_width = groups[0]["observations"].shape[1], groups[0]["actions"].shape[1]
    observations, finals = np.empty((rows, width), np.float32), np.empty((count, width), np.float32)
    actions = np.empty((rows, action_width), np.float32)
    vectors: dict[str, NDArray[Any]] = {
        "rewards": np.empty(rows, np.float32),
        "terminations": np.empty(rows, bool),
        "truncations": np.empty(rows, bool),
        "infos/score": np.empty(rows, np.float32),
        "infos/label": np.empty(rows, np.int8),
    }
    for index, group in enumerate(groups):
        part = slice(starts[index], starts[index] + lengths[index])
        whole = group["observations"][()]
        observations[part], finals[index] = whole[:-1], whole[-1]
        actions[part] = group["actions"][()]
        for name, values in vectors.items():
            values[part] = group[name][()]
    episode = np.repeat(np.arange(count), lengths)
    transitions: dict[str, Any] = {
        "observation": columns.list_array(observations),
        "action": columns.list_array(actions),
        **{column: vectors[name] for column, name in _STEPS.items()},
        "episode": episode.astype(np.int32),
        "step": (np.arange(rows) - starts[episode]).astype(np.int32),
        "score": columns.score_array(vectors["infos/score"], pa.float32()),
        "label": columns.label_array(vectors["infos/label"]),
    }
    schema = episodes_schema(width)
    listed: dict[str, Any] = {
        name: pa.array([_plain(each.get(name)) for each in attributes], schema.field(name).type) for name in _ATTRIBUTES
    }
    listed |= {"start": starts, "length": lengths.astype(np.int32), "final_observation": columns.list_array(finals)}
    return pa.table(transitions, transitions_schema(width, action_width)), pa.table(listed, schema)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _write_flat(file: h5py.File, table: pa.Table) -> None:
    for field in table.schema:
        if field.name == "label":
            file["label"] = columns.labels(table)
        elif pa.types.is_fixed_size_list(field.type):
            file[field.name] = columns.matrix(table, field.name)
        elif pa.types.is_string(field.type):
            file.create_dataset(field.name, data=table.column(field.name).to_pylist(), dtype=h5py.string_dtype("utf-8"))
        else:
            file[field.name] = columns.vector(table, field.name)


def _read_flat(file: h5py.File, name: str) -> pa.Table:
    schema = candidates_schema(file["action"].shape[1]) if name == "candidates" else responses_schema()
    arrays = {}
    for field in schema:
        stored = file[field.name]
        if field.name == "label":
            arrays["label"] = columns.label_array(stored[()])
        elif field.name == "score":
            arrays["score"] = columns.score_array(stored[()], field.type)
        elif pa.types.is_fixed_size_list(field.type):
            arrays[field.name] = columns.list_array(stored[()])
        elif pa.types.is_string(field.type):
            arrays[field.name] = pa.array(stored.asstr()[()].tolist(), field.type)
        else:
            arrays[field.name] = pa.array(stored[()], field.type)
    return pa.table(arrays, schema)


def _minari_metadata(metadata: Metadata, tables: dict[str, pa.Table], size: int) -> dict[str, Any]:
    # Minari and Gymnasium take a second to import and only this form needs them.
    from gymnasium.spaces import Box
    from minari.serialization import serialize_space

    widths = {name: tables["transitions"].schema.field(name).type.list_size for name in ("observation", "action")}
    spaces = {
        f"{name}_space": serialize_space(Box(-np.inf, np.inf, (width,), np.float32)) for name, width in widths.items()
    }
    references = metadata.references
    scores = {"ref_min_score": references.min, "ref_max_score": references.max} if references else {}
    return {
        "dataset_id": metadata.id,
        "minari_version": _MINARI_VERSION,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "total_episodes": metadata.counts.episodes,
        "total_steps": metadata.counts.rows,
        "dataset_size": size / 2**20,
        **spaces,
        **scores,
        "author": ["pmpo-offline"],
        "algorithm_name": "mixture of behaviours, see the episodes' attribute behavior",
        "description": f"{metadata.task}: accept/reject labels by {metadata.label} (infos/label: 1, -1, 0 unlabelled)",
        "licence": metadata.licence,
    }
