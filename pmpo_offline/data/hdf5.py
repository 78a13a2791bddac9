"""The HDF5 form: transitions as a Minari directory that stock Minari opens, the other tables as flat row-aligned files.

data/metadata.json       for Minari, made from dataset.json
data/main_data.hdf5      episode_<i>/  observations (T+1, O): the last one is final_observation; float64 of
                                       Gymnasium's environments, as their spaces have it, else float32
                                       actions (T, A), or (T,) whole numbers of a Discrete space; rewards,
                                       terminations, truncations (T,)
                                       infos/score (T+1,): NaN where absent, infos/label (T+1,): +1, −1, 0 unlabelled;
                                       as Minari has it, the first info is the reset's, which has neither
                                       attributes: id, total_steps, return, success, behavior, seed, score, label …
episodes.hdf5            the columns of episodes, one dataset a column: matrices (N, width), text as UTF-8 strings,
candidates.hdf5          score NaN where absent, label +1, −1, 0 unlabelled; the same for candidates and responses
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pmpo_offline.data import columns, mapping
from pmpo_offline.data.mapping import Spill, spilled
from pmpo_offline.data.minari_metadata import minari_metadata, observation_type
from pmpo_offline.data.opening import open_hdf5
from pmpo_offline.data.schema import Metadata, candidates_schema, episodes_schema, responses_schema, transitions_schema
from pmpo_offline.runtime import progress

_MINARI_FILE = "data/main_data.hdf5"
_STEPS = {"actions": "action", "rewards": "reward", "terminations": "terminated", "truncations": "truncated"}
_INFOS = {"infos/score": "score", "infos/label": "label"}
_TEXT = h5py.string_dtype("utf-8")
_PLAIN = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
_PLAIN.set_obj_track_times(False)  # equal content is equal bytes, whenever it is written


def write(directory: Path, metadata: Metadata, tables: dict[str, pa.Table]) -> None:
    """Write the tables into `directory`; raises `OSError` where the disk refuses."""
    for name, table in tables.items():
        if name == "transitions":
            write_minari(directory, metadata, table, tables["episodes"])
        else:
            with new_file(directory / f"{name}.hdf5", [table]) as file:
                write_flat(file, table)


def write_minari(directory: Path, metadata: Metadata, steps: pa.Table, episodes: pa.Table) -> None:
    """Write the transitions as the Minari dataset `directory`."""
    (directory / "data").mkdir()
    path = directory / _MINARI_FILE
    # HDF5 takes 5 kB for an episode's group, datasets and attributes.
    kind = observation_type(metadata.task)
    observations = steps["observation"].nbytes
    with new_file(path, [steps], 8192 * episodes.num_rows + observations) as file:
        _write_steps(file, steps, episodes, kind)
    described = minari_metadata(metadata, steps) | {"dataset_size": path.stat().st_size / 2**20}
    (directory / "data/metadata.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def read(directory: Path, metadata: Metadata) -> dict[str, pa.Table]:
    """Read tables equal to those of the Arrow form; raises `KeyError` or `ValueError` for a file of other content."""
    tables = {}
    for name in ("episodes", "candidates", "responses"):
        if info := metadata.files.get(f"{name}.hdf5"):
            with open_hdf5(directory / f"{name}.hdf5", info.sha256) as file:
                tables[name] = _read_flat(file, name)
    if info := metadata.files.get(_MINARI_FILE):
        lengths = columns.vector(tables["episodes"], "length").astype(np.int64)
        if lengths.min(initial=1) < 1 or lengths.sum() * 4 > info.bytes:  # before memory is allocated for the rows
            raise ValueError(
                f"the lengths of the episodes sum to {lengths.sum():,}, for which {_MINARI_FILE} is too small"
            )
        # Beyond what memory is for, the rows are mapped like those of the Arrow form: from a file without a name.
        with open_hdf5(directory / _MINARI_FILE, info.sha256) as file, spilled(Path(tempfile.gettempdir())):
            tables["transitions"] = _read_steps(file, lengths)
    return tables


@contextmanager
def new_file(path: Path, tables: Iterable[pa.Table], overhead: int = 0) -> Iterator[h5py.File]:
    """Open a new HDF5 file for these tables; raises `OSError` at once if they and `overhead` bytes do not fit the disk.

    On a full disk HDF5 cannot close its objects, prints an error for each, and crashes at exit.
    """
    size = overhead
    for table in tables:  # upper bounds: a byte a label, 64 a text
        texts = sum(pa.types.is_string(field.type) for field in table.schema)
        size += table.nbytes + table.num_rows * (8 * len(table.schema) + 64 * texts) + 2**20
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(file.fileno(), 0, size)
    with h5py.File(path, "w") as file:
        yield file


def put(group: h5py.h5g.GroupID, name: str, values: NDArray[Any]) -> None:
    """Write `values` as the dataset `name`, four times as fast as `group[name] = values`."""
    dataset = h5py.h5d.create(group, name.encode(), _kind(values.dtype), _space(values.shape), _PLAIN)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(values))


@lru_cache(maxsize=64)
def _kind(dtype: np.dtype[Any]) -> h5py.h5t.TypeID:
    return h5py.h5t.py_create(dtype, logical=True)


@lru_cache(maxsize=1024)
def _space(shape: tuple[int, ...]) -> h5py.h5s.SpaceID:
    return h5py.h5s.create_simple(shape)


def _write_steps(file: h5py.File, steps: pa.Table, episodes: pa.Table, kind: type[np.floating]) -> None:
    """Write a group an episode, with observations of this type."""
    finals = columns.matrix(episodes, "final_observation")
    rows = columns.by_episode(steps, episodes, "observation", *_STEPS.values(), *_INFOS.values())
    resets: dict[str, NDArray[Any]] = {"score": np.full(1, np.nan, np.float32), "label": np.zeros(1, np.int8)}
    described = zip(_attributes(episodes), rows, strict=True)
    for index, (attributes, own) in enumerate(progress.counted(described, "write rows", episodes.num_rows)):
        group = h5py.h5g.create(file.id, f"episode_{index}".encode())
        put(group, "observations", np.concatenate([own["observation"], finals[index : index + 1]], dtype=kind))
        if own["action"].dtype.kind == "i":  # as Minari has those of a Discrete space
            own["action"] = own["action"][:, 0].astype(np.int64)
        for name, column in _STEPS.items():
            put(group, name, own[column])
        h5py.h5g.create(group, b"infos")
        for name, column in _INFOS.items():
            put(group, name, np.concatenate([resets[column], own[column]]))
        for name, value in {"id": index, **attributes}.items():
            if value is not None:
                _put_attribute(group, name, value)


def _attributes(episodes: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield the attributes of every episode's group."""
    for batch in episodes.drop_columns(["start", "final_observation"]).to_batches(max_chunksize=1024):
        for row in batch.to_pylist():
            yield {"total_steps": row.pop("length"), **row}


def _put_attribute(group: h5py.h5g.GroupID, name: str, value: Any) -> None:
    """Write a number or a text, as `group.attrs[name] = value` does."""
    array = np.array(value, _TEXT if isinstance(value, str) else None)
    h5py.h5a.create(group, name.encode(), _kind(array.dtype), _space(())).write(array)


def _read_steps(file: h5py.File, lengths: NDArray[np.int64]) -> pa.Table:
    spills = {name: Spill() for name in ("observation", *_STEPS.values(), *_INFOS.values(), "episode", "step")}
    for group in columns.grouped(np.cumsum(lengths), mapping.ROWS):
        for name, values in _read_group(file, range(group.start, group.stop), lengths[group]).items():
            spills[name].append(values)
    arrays = {name: spill.joined() for name, spill in spills.items()}
    width, acted = (arrays[name].shape[1] for name in ("observation", "action"))
    is_discrete = file["episode_0"]["actions"].dtype.kind == "i"
    return columns.table_of(arrays, transitions_schema(width, acted, discrete=is_discrete))


def _read_group(file: h5py.File, episodes: range, lengths: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Return the columns of the steps of some episodes, labels and scores as in arrays."""
    rows, count = int(lengths.sum()), len(lengths)
    starts = np.cumsum(lengths) - lengths
    first = file["episode_0"]
    states = np.empty((rows + count, first["observations"].shape[1]), np.float32)  # T+1 an episode
    stored = {name: np.empty((rows, *first[name].shape[1:]), first[name].dtype) for name in _STEPS}
    infos = {name: np.empty(rows + count, first[name].dtype) for name in _INFOS}
    # Without an info of the reset in what was written before it had one.
    reset = len(first["infos/label"]) - len(first["actions"])
    for index, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
        group = file[f"episode_{episodes[index]}"].id
        _read_into(states[start + index : start + index + length + 1], group, "observations")
        for name, values in stored.items():
            _read_into(values[start : start + length], group, name)
        for name, values in infos.items():
            _read_into(values[start + index + 1 - reset : start + index + 1 + length], group, name)
    own = np.repeat(np.arange(count), lengths)
    at = starts + np.arange(count)  # of each episode's reset, among T+1 rows an episode
    stored["actions"] = stored["actions"].reshape(rows, -1)  # discrete ones are one number
    return {
        "observation": np.delete(states, at + lengths, axis=0),
        "episode": (own + episodes.start).astype(np.int32),
        "step": (np.arange(rows) - starts[own]).astype(np.int32),
        **{column: stored[name] for name, column in _STEPS.items()},
        **{column: np.delete(infos[name], at) for name, column in _INFOS.items()},
    }


def _read_into(target: NDArray[Any], group: h5py.h5g.GroupID, name: str) -> None:
    """Fill `target` from a dataset by h5py's low level, which is four times as fast: seconds with many episodes."""
    stored = h5py.h5d.open(group, name.encode())
    if stored.shape != target.shape:
        raise ValueError(f"{name}: expected shape {target.shape}, got {stored.shape}")
    stored.read(h5py.h5s.ALL, h5py.h5s.ALL, target)


def write_flat(file: h5py.File | h5py.Group, table: pa.Table) -> None:
    """Write every column of a table as one dataset."""
    for field in table.schema:
        values = columns.values(table, field.name)
        if pa.types.is_string(field.type):
            file.create_dataset(field.name, data=values, dtype=_TEXT)
        else:
            file[field.name] = values


def _read_flat(file: h5py.File, name: str) -> pa.Table:
    if name == "episodes":
        schema = episodes_schema(file["final_observation"].shape[1])
    else:
        schema = candidates_schema(file["action"].shape[1]) if name == "candidates" else responses_schema()
    stored = {name: file[name] for name in schema.names}
    texts = {field.name for field in schema if pa.types.is_string(field.type)}
    arrays = {name: (found.asstr() if name in texts else found)[()] for name, found in stored.items()}
    return columns.table_of(arrays, schema)
