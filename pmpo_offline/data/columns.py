"""Arrow columns as NumPy arrays and back, without a copy wherever the layout allows it.

In Arrow an absent label or score is null. In arrays a label is int8 (+1 accept, −1 reject, 0 unlabelled) and an absent
score is NaN, so that arithmetic needs no masks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pmpo_offline.data.labels import Labels
from pmpo_offline.runtime.hashing import hash_bytes


def _whole(table: pa.Table, name: str) -> pa.Array:
    """Return the column as one array; a stored table is one batch, so this copies nothing."""
    column = table.column(name)
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def vector(table: pa.Table, name: str) -> NDArray[Any]:
    """Return a numeric or Boolean column as (n,); null floats become NaN. Read-only where it is a view of the file."""
    array: NDArray[Any] = _whole(table, name).to_numpy(zero_copy_only=False)
    return array


def matrix(table: pa.Table, name: str) -> NDArray[np.float32]:
    """Return a fixed-size-list column as a view (n, width) of its values."""
    lists = _whole(table, name)
    values: NDArray[np.float32] = lists.flatten().to_numpy(zero_copy_only=True).reshape(len(lists), -1)
    return values


def labels(table: pa.Table) -> Labels:
    """Return the `label` column as int8 (n,): +1 accept, −1 reject, 0 unlabelled."""
    column = _whole(table, "label")
    signs = np.where(column.fill_null(False).to_numpy(zero_copy_only=False), 1, -1).astype(np.int8)
    signs[column.is_null().to_numpy(zero_copy_only=False)] = 0
    return signs


def label_array(signs: Labels) -> pa.Array:
    """Return int8 labels (n,) as the nullable Boolean array that is stored."""
    return pa.array(signs > 0, mask=signs == 0)


def score_array(scores: NDArray[np.floating], dtype: pa.DataType) -> pa.Array:
    """Return scores (n,) as an array of `dtype`, null where they are NaN."""
    return pa.array(np.asarray(scores, dtype.to_pandas_dtype()), mask=np.isnan(scores))


def list_array(values: NDArray[np.float32]) -> pa.Array:
    """Return (n, width) as a fixed-size-list array that shares its memory."""
    flat = np.ascontiguousarray(values, np.float32).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=pa.list_(pa.float32(), values.shape[1]))


def replace(table: pa.Table, **arrays: pa.Array) -> pa.Table:
    """Return `table` with the named columns replaced; all others are shared with it."""
    for name, array in arrays.items():
        position = table.schema.get_field_index(name)
        table = table.set_column(position, table.schema.field(position), array)
    return table


def hash_tables(tables: Mapping[str, pa.Table]) -> str:
    """Return a hash of the tables' content and names, equal in whatever file, order of columns or chunks it is held."""
    return hash_bytes(_content(tables))


def _content(tables: Mapping[str, pa.Table]) -> Iterator[bytes]:
    for title, table in sorted(tables.items()):
        for name in sorted(table.column_names):
            yield f"{title}.{name}:{table.num_rows}".encode()
            for start in range(0, table.num_rows, 1 << 18):
                column = table.column(name).slice(start, 1 << 18).combine_chunks()
                yield np.packbits(column.is_valid().to_numpy(zero_copy_only=False)).tobytes()
                known = column.drop_null()
                values = (known.flatten() if hasattr(known, "flatten") else known).to_numpy(zero_copy_only=False)
                yield json.dumps(values.tolist()).encode() if values.dtype == object else values.tobytes()
