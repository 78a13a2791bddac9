"""Arrow columns as NumPy arrays and back, without a copy wherever the layout allows it; recorded episodes as tables.

A large table is in several chunks (`data.mapping`): `vector` and `matrix` join those of a column, which copies it, and
`blocks` reads it a part at a time.

In Arrow an absent label or score is null. In arrays a label is int8 (+1 accept, −1 reject, 0 unlabelled) and an absent
score is NaN, so that arithmetic needs no masks.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pmpo_offline.data import mapping
from pmpo_offline.data.mapping import Spill, gathered, release_pages, taken
from pmpo_offline.data.schema import episodes_schema, transitions_schema
from pmpo_offline.runtime.arrays import load_arrays, save_arrays
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.hashing import hash_bytes

BLOCK = 1 << 20
"""Rows that are read or converted at once where a column may be large."""
Labels = NDArray[np.int8]
"""+1 accept, −1 reject, 0 unlabelled."""


def _whole(table: pa.Table, name: str) -> pa.Array:
    """Return the column as one array; of a table in one chunk this copies nothing."""
    column = table.column(name)
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _vector(array: pa.Array) -> NDArray[Any]:
    """Return `array.to_numpy`, which imports pandas where that is installed: a second of every process that trains."""
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.array(array.to_pylist(), dtype=object)
    if array.null_count and pa.types.is_floating(kind):
        found = np.full(len(array), np.nan, kind.to_pandas_dtype())
        found[_vector(array.is_valid())] = _vector(array.drop_null())
        return found
    if array.null_count or not (pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return array.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
    if pa.types.is_boolean(kind):
        return np.from_dlpack(array.cast(pa.uint8())).astype(np.bool_)
    return np.from_dlpack(array)


def _matrix(lists: pa.Array) -> NDArray[np.float32]:
    flat: NDArray[np.float32] = np.from_dlpack(lists.flatten())  # type: ignore[assignment]
    return flat.reshape(len(lists), -1)  # an error where a number is null


def _signs(labels: pa.Array) -> Labels:
    known = _vector(labels.is_valid())
    signs = np.zeros(len(labels), np.int8)
    signs[known] = np.where(_vector(labels.drop_null()), 1, -1)
    return signs


def _decoded(array: pa.Array, name: str) -> NDArray[Any]:
    if name == "label":
        return _signs(array)
    return _matrix(array) if pa.types.is_fixed_size_list(array.type) else _vector(array)


def vector(table: pa.Table, name: str) -> NDArray[Any]:
    """Return a numeric or Boolean column as (n,); null floats become NaN. Read-only where it is a view of the file."""
    return _vector(_whole(table, name))


def matrix(table: pa.Table, name: str) -> NDArray[np.float32]:
    """Return a fixed-size-list column as (n, width), a view of its values if they are in one chunk."""
    return _matrix(_whole(table, name))


def labels(table: pa.Table) -> Labels:
    """Return the `label` column as int8 (n,): +1 accept, −1 reject, 0 unlabelled."""
    return np.concatenate([np.zeros(0, np.int8), *blocks(table, "label")])


def values(table: pa.Table, name: str) -> NDArray[Any]:
    """Return any column as an array: lists as (n, width), `label` as int8, texts as objects."""
    return labels(table) if name == "label" else _decoded(_whole(table, name), name)


def blocks(table: pa.Table, name: str, rows: int = BLOCK) -> Iterator[NDArray[Any]]:
    """Yield `values` of a column, at most `rows` of them at once; memory of mapped files is given back in between."""
    for block in batches(table, name, rows=rows):
        yield block[name]


def batches(table: pa.Table, *names: str, rows: int = BLOCK) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield `values` of several columns, of the same rows, as `blocks` does."""
    for batch in table.select(names).to_batches(max_chunksize=rows):
        yield {name: _decoded(batch.column(name), name) for name in names}
        release_pages()


def groups(
    steps: pa.Table, episodes: pa.Table, *names: str
) -> Iterator[tuple[slice, NDArray[np.int64], dict[str, NDArray[Any]]]]:
    """Yield groups of whole episodes, of some `ROWS` steps: which episodes, their starts, and `values` of columns.

    The starts count from the group's first step, with the number of its steps as the last; memory of mapped files is
    given back in between.
    """
    end = vector(episodes, "start") + vector(episodes, "length")
    for own in grouped(end, mapping.ROWS):
        first = int(end[own.start - 1]) if own.start else 0
        starts = np.append(0, end[own] - first)
        taken = steps.select(names).slice(first, int(starts[-1]))
        yield own, starts, {name: values(taken, name) for name in names}
        release_pages()


def by_episode(steps: pa.Table, episodes: pa.Table, *names: str) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield `values` of several columns of the steps, an episode at a time."""
    for _, starts, found in groups(steps, episodes, *names):
        for start, end in pairwise(starts.tolist()):
            yield {name: each[start:end] for name, each in found.items()}


def list_array(values: NDArray[Any]) -> pa.Array:
    """Return (n, width) as a fixed-size-list array that shares its memory: int32 of integers, else float32."""
    kind = pa.int32() if values.dtype.kind == "i" else pa.float32()
    flat = np.ascontiguousarray(values, kind.to_pandas_dtype()).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(_array(flat, kind), type=pa.list_(kind, values.shape[1]))


def array(values: NDArray[Any] | pa.Array, field: pa.Field) -> pa.Array:
    """Return what `values` returns as a field's array: labels of 0 and scores that are NaN become null."""
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    if field.name in ("label", "score") and len(values) > BLOCK:
        return pa.chunked_array([array(values[at : at + BLOCK], field) for at in range(0, len(values), BLOCK)])
    if field.name == "label":
        return _array(values > 0, field.type, values != 0)
    if field.name == "score":
        return _array(values, field.type, ~np.isnan(values))
    return list_array(values) if pa.types.is_fixed_size_list(field.type) else pa.array(values, field.type)


def without_nans(scores: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return scores with null for NaN."""
    return pa.chunked_array(
        [_array(values := _vector(chunk), scores.type, ~np.isnan(values)) for chunk in scores.chunks], scores.type
    )


def _array(values: NDArray[Any], kind: pa.DataType, known: NDArray[np.bool_] | None = None) -> pa.Array:
    """Return numbers or truth values as `pa.array` does, which imports pandas; null where they are not `known`."""
    flags = pa.types.is_boolean(kind)
    data = _bits(values) if flags else pa.py_buffer(np.ascontiguousarray(values, kind.to_pandas_dtype()))
    return pa.Array.from_buffers(kind, len(values), [None if known is None or known.all() else _bits(known), data])


def _bits(flags: NDArray[np.bool_]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(flags, bitorder="little"))


def table_of(arrays: Mapping[str, NDArray[Any] | pa.Array], schema: pa.Schema) -> pa.Table:
    """Return the table of this schema with these columns."""
    return pa.table([array(arrays[field.name], field) for field in schema], schema=schema)


def replace(table: pa.Table, **arrays: NDArray[Any] | pa.Array) -> pa.Table:
    """Return `table` with the named columns replaced; all others are shared with it."""
    for name, values in arrays.items():
        position = table.schema.get_field_index(name)
        field = table.schema.field(position)
        table = table.set_column(position, field, array(values, field))
    return table


def states_and_width(candidates: pa.Table) -> tuple[int, int]:
    """Return (states, K) of a candidates table; raises `UserError` unless each state has K consecutive rows."""
    rows = vector(candidates, "row")
    width = int(np.searchsorted(rows, rows[0], side="right")) if len(rows) else 0
    if not width or len(rows) % width:
        raise UserError(f"candidates: {len(rows)} rows do not make equal groups of {width}")
    first = rows.reshape(-1, width)
    if (first != first[:, :1]).any() or (np.diff(first[:, 0]) <= 0).any():
        raise UserError(f"candidates: not sorted by row in groups of {width}")
    return len(rows) // width, width


def hash_tables(tables: Mapping[str, pa.Table]) -> str:
    """Return a hash of the tables' content and names, equal in whatever file, order of columns or chunks it is held."""

    def content() -> Iterator[bytes]:
        for title, table in sorted(tables.items()):
            for name in sorted(table.column_names):
                yield f"{title}.{name}:{table.num_rows}".encode()
                for start in range(0, table.num_rows, 1 << 18):
                    column = table.column(name).slice(start, 1 << 18).combine_chunks()
                    yield np.packbits(_vector(column.is_valid())).tobytes()
                    known = column.drop_null()
                    flat = _vector(known.flatten() if hasattr(known, "flatten") else known)
                    yield json.dumps(flat.tolist()).encode() if flat.dtype == object else flat.tobytes()
                    release_pages()

    return hash_bytes(content())


def same_memory(tables: Mapping[str, pa.Table], others: Mapping[str, pa.Table], but: Collection[str]) -> bool:
    """Return whether tables have the same columns in the same memory, `but` for some columns which may differ."""

    def places(table: pa.Table) -> dict[str, list[Any]]:
        return {
            name: [
                (chunk.offset, len(chunk), [buffer and buffer.address for buffer in chunk.buffers()])
                for chunk in table.column(name).chunks
            ]
            for name in table.column_names
            if name not in but
        }

    return tables.keys() == others.keys() and all(places(tables[name]) == places(others[name]) for name in tables)


class Tables:
    """Base of what has the tables of a dataset."""

    table: pa.Table
    """Transitions, or responses if there are no episodes."""
    episodes: pa.Table | None
    candidates: pa.Table | None

    @property
    def others(self) -> dict[str, pa.Table]:
        """The tables beside `table`, by name."""
        tables = {"episodes": self.episodes, "candidates": self.candidates}
        return {name: table for name, table in tables.items() if table is not None}

    @property
    def tables(self) -> dict[str, pa.Table]:
        """The tables by the names under which they are stored."""
        return {"responses" if self.episodes is None else "transitions": self.table, **self.others}


@dataclass(frozen=True)
class Experience:
    """N steps of E episodes, one episode after the other; after an episode's last step comes its final observation."""

    observation: NDArray[np.float32]  # (N, O)
    action: NDArray[Any]  # (N, A) float32; discrete ones (N, 1) int32
    reward: NDArray[np.float32]  # (N,)
    length: NDArray[np.int64]  # (E,)
    success: NDArray[np.bool_]  # (E,)
    terminated: NDArray[np.bool_]  # (E,) the task ended the episode; otherwise the horizon cut it
    final_observation: NDArray[np.float32]  # (E, O)
    behavior: NDArray[np.str_]  # (E,)
    seed: NDArray[np.int64]  # (E,)

    @classmethod
    def concatenate(cls, parts: Iterable[Experience]) -> Experience:
        """Join recordings, one after another; memory holds one of them at a time where large arrays are `spilled`."""
        spills = {f.name: Spill() for f in fields(cls)}
        for part in parts:
            for name, values in vars(part).items():
                spills[name].append(values)
        return cls(**{name: spill.joined() for name, spill in spills.items()})

    def save(self, path: Path) -> None:
        """Write the recording to `path`, whole or not at all."""
        save_arrays(path, vars(self))

    @classmethod
    def load(cls, path: Path) -> Experience:
        """Read a recording; `PmpoOfflineError` if the file is damaged."""
        return cls(**load_arrays(path, [f.name for f in fields(cls)], gathered))

    def firsts(self) -> NDArray[np.int64] | None:
        """Return the first episode (E,) that equals each one in all numbers, None if all of them differ.

        Only episodes that begin and end alike are compared as a whole, by a hash: memory does not hold them all.
        """
        start = np.cumsum(self.length) - self.length
        rows = [taken(values, start) for values in (self.observation, self.action)]
        parts = zip(self.length.tolist(), self.terminated.tolist(), *rows, self.final_observation, strict=True)
        keys = [hash((count, ended, *(values.tobytes() for values in own))) for count, ended, *own in parts]
        _, group, counts = np.unique(keys, return_inverse=True, return_counts=True)
        found, first = np.arange(len(start)), dict[str, int]()
        for index in np.flatnonzero(counts[group] > 1).tolist():
            own = slice(start[index], start[index] + self.length[index])
            whole = (values[own].tobytes() for values in (self.observation, self.action, self.reward))
            found[index] = first.setdefault(f"{keys[index]} {hash_bytes(whole)}", index)
            release_pages()
        return found if (found != np.arange(len(found))).any() else None

    def tables(self) -> tuple[pa.Table, pa.Table]:
        """Return the transitions and the episodes as Arrow tables, scores and labels empty."""
        n, e = len(self.reward), len(self.length)
        last = np.cumsum(self.length) - 1
        start = last + 1 - self.length
        terminated, truncated = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        terminated[last], truncated[last] = self.terminated, ~self.terminated
        returns = np.zeros(e)
        episode, step = Spill(), Spill()
        for group in grouped(last + 1, BLOCK):
            first, end = group.start, group.stop
            own = np.repeat(np.arange(first, end), self.length[group])
            rows = slice(start[first], start[first] + len(own))
            episode.append(own.astype(np.int32))
            step.append((np.arange(rows.start, rows.stop) - start[own]).astype(np.int32))
            returns[first:end] = np.add.reduceat(self.reward[rows].astype(np.float64), start[first:end] - rows.start)
            release_pages()
        rows_of: dict[str, Any] = {
            "observation": self.observation,
            "action": self.action,
            "reward": self.reward,
            "terminated": terminated,
            "truncated": truncated,
            "episode": episode.joined(),
            "step": step.joined(),
            "score": _nulls(n, pa.float32()),
            "label": _nulls(n, pa.bool_()),
        }
        ends: dict[str, Any] = {
            "start": start,
            "length": self.length,
            "return": returns,
            "success": self.success,
            "terminated": self.terminated,
            "final_observation": self.final_observation,
            "behavior": self.behavior.tolist(),
            "seed": self.seed,
            "score": pa.nulls(e, pa.float64()),
            "label": pa.nulls(e, pa.bool_()),
            "split": ["train"] * e,
        }
        width = self.observation.shape[1]
        transitions = transitions_schema(width, self.action.shape[1], discrete=self.action.dtype.kind == "i")
        return table_of(rows_of, transitions), table_of(ends, episodes_schema(width))


def grouped(end: NDArray[np.int64], rows: int) -> Iterator[slice]:
    """Yield slices of whole episodes of some `rows` rows, given the row after every episode's last."""
    first = 0
    while first < len(end):
        last = int(np.searchsorted(end, (end[first - 1] if first else 0) + rows))
        yield slice(first, first := min(last + 1, len(end)))


def _nulls(count: int, kind: pa.DataType) -> pa.ChunkedArray:
    """Return a column of nulls whose chunks share their memory."""
    block = pa.nulls(min(count, BLOCK), kind)
    return pa.chunked_array([block.slice(0, count - at) for at in range(0, count, BLOCK)], kind)
