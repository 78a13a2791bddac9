"""Columns become NumPy's arrays and back as pyarrow's own conversions do it, without pandas, which these import."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pmpo_offline.data import columns

ARRAYS = {
    "float32": pa.array([1.5, -2, float("nan")], pa.float32()),
    "float64 with nulls": pa.array([1.0, None, 3.0, None]),
    "int64": pa.array([1, 2, 3]),
    "part of int32": pa.array(range(20), pa.int32()).slice(3, 11),
    "Booleans": pa.array([True, False, True] * 7),
    "part of Booleans": pa.array([True, False, True] * 7).slice(5, 9),
    "Booleans with nulls": pa.array([True, None, False]),
    "integers with nulls": pa.array([1, None, 3]),
    "strings": pa.array(["a", None, "cä"]),
    "large strings": pa.array(["a", "b"], pa.large_string()),
    "nothing": pa.array([], pa.float32()),
    "no Booleans": pa.array([], pa.bool_()),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_a_column_is_what_pyarrow_makes_of_it(name: str) -> None:
    expected = ARRAYS[name].to_numpy(zero_copy_only=False)
    found = columns.vector(pa.table({"x": ARRAYS[name]}), "x")
    assert found.dtype == expected.dtype
    assert found.tolist() == expected.tolist() or np.array_equal(found, expected, equal_nan=True)


def stored(array: pa.Array) -> bytes:
    """The bytes of a file that holds an array."""
    table, sink = pa.table({"x": array}), pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("rows", [0, 1, 8, 65, 1000])
@pytest.mark.parametrize("absent", [0.0, 0.4, 1.0])
def test_labels_and_scores_are_stored_byte_for_byte_as_pyarrow_makes_them(rows: int, absent: float) -> None:
    rng = np.random.default_rng(rows)
    missing = rng.random(rows) < absent
    labels = np.where(missing, 0, rng.choice([-1, 1], rows)).astype(np.int8)
    scores = np.where(missing, np.nan, rng.normal(size=rows)).astype(np.float32)
    found = columns.array(labels, pa.field("label", pa.bool_()))
    assert stored(found) == stored(pa.array(labels > 0, mask=labels == 0))
    for kind in (pa.float32(), pa.float64()):
        expected = pa.array(scores.astype(kind.to_pandas_dtype()), mask=np.isnan(scores))
        assert stored(columns.array(scores, pa.field("score", kind))) == stored(expected)
    assert columns.values(pa.table({"label": found}), "label").tolist() == labels.tolist()
