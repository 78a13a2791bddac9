"""Rows of columns in several chunks, and memory of mapped files that is given back."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from helpers.aligned import experience
from helpers.experiences import assert_equal, part
from hypothesis import given
from hypothesis import strategies as st

from pmpo_offline.data import Experience, columns, mapping
from pmpo_offline.data.gathering import Column
from pmpo_offline.data.mapping import read_arrow


def column(values: np.ndarray, lengths: list[int]) -> Column:
    """Return these values as a column in chunks of these lengths, each in memory of its own."""
    cuts = np.split(values, np.cumsum(lengths)[:-1])
    return Column([torch.from_numpy(cut.copy()) for cut in cuts], mapped=True)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any), st.integers(1, 5), st.booleans(), st.data())
def test_chunks_are_gathered_from_as_one_array(
    lengths: list[int], width: int, flat: bool, drawn: st.DataObject
) -> None:
    total = sum(lengths)
    values = np.arange(total * width, dtype=np.float32).reshape(total, width)
    values = values[:, 0] if flat else values
    found = column(values, lengths)
    rows = np.array(drawn.draw(st.lists(st.integers(0, total - 1), min_size=1, max_size=20)))
    assert found[torch.from_numpy(rows)].numpy().tolist() == values[rows].tolist()
    assert found[torch.from_numpy(rows[:, None])].numpy().tolist() == values[rows[:, None]].tolist()
    assert found.packed().numpy().tolist() == values.tolist()
    assert len(found) == total
    assert found.nbytes == values.nbytes
    assert found.largest() == values.max()


@pytest.mark.parametrize("row", [-1, 8])
@pytest.mark.parametrize("lengths", [[8], [3, 5]])
def test_rows_outside_are_refused(row: int, lengths: list[int]) -> None:
    with pytest.raises(IndexError):
        column(np.arange(8, dtype=np.float32), lengths)[torch.tensor([0, row])]


def test_moments_do_not_depend_on_chunks_and_are_those_of_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(100, 3, (5000, 3)).astype(np.float32)
    whole, split = column(values, [5000]), column(values, [1234, 2, 3764])
    for one, other in zip(whole.moments(), split.moments(), strict=True):
        assert one.equal(other)
    monkeypatch.setattr("pmpo_offline.data.gathering._AT_ONCE", 0)
    monkeypatch.setattr(columns, "BLOCK", 700)
    exact = values.astype(np.float64)
    for one, other, expected in zip(
        whole.moments(), split.moments(), (exact.mean(0), exact.std(0, ddof=1)), strict=True
    ):
        assert one.equal(other)
        np.testing.assert_allclose(one.numpy(), expected, rtol=1e-7)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not say what is resident")
def test_pages_of_mapped_files_are_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"x": np.arange(4 << 20)})  # 32 MiB
    path = tmp_path / "t.arrow"
    with pa.ipc.new_file(path, table.schema) as file:
        file.write_table(table.combine_chunks(), max_chunksize=len(table))
    values = columns.vector(read_arrow(path), "x")

    def resident() -> int:
        lines = Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines()
        start = next(number for number, line in enumerate(lines) if line.endswith(str(path)))
        return int(next(line for line in lines[start:] if line.startswith("Rss:")).split()[1]) << 10

    assert values.sum() == (4 << 20) * ((4 << 20) - 1) // 2
    assert resident() > 30 << 20
    mapping.release_pages()
    assert resident() > 30 << 20, "so little is left where it is"
    monkeypatch.setattr(mapping, "RESIDENT", 1 << 20)
    mapping.release_pages()
    assert resident() == 0
    assert values[-1] == (4 << 20) - 1, "the values are still there"


def test_a_mapped_file_is_closed_with_its_map(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"some")
    with warnings.catch_warnings(record=True, action="always") as said:
        buffer = mapping.map_file(tmp_path / "file")
        assert buffer.to_pybytes() == b"some"
        del buffer
    assert said == [], "no unclosed file"


@pytest.mark.parametrize("in_files", [True, False])
def test_recordings_are_joined_in_files_as_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_files: bool
) -> None:
    whole = experience([3, 1, 4, 7, 2, 1, 1])
    expected = whole.tables()
    monkeypatch.setattr(columns, "BLOCK", 4)
    monkeypatch.setattr(mapping, "SPILLED", 8)
    with mapping.spilled(tmp_path) if in_files else nullcontext():
        joined = Experience.concatenate(part(whole, index) for index in range(7))
        assert_equal(joined, whole)
        for one, other in zip(joined.tables(), expected, strict=True):
            assert one.equals(other)
    assert joined.observation.flags.writeable is not in_files
    assert not list(tmp_path.iterdir()), "files without a name leave nothing"


def test_blocks_of_other_widths_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "SPILLED", 8)
    with mapping.spilled(tmp_path):
        spill = mapping.Spill()
    spill.append(np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"expected rows of float32\(3,\)"):
        spill.append(np.ones((2, 4), np.float32))
    assert spill.joined().tolist() == [[1, 1, 1]] * 2


@pytest.mark.parametrize("last", [[0.1], [None], [2**40], [True]])
@pytest.mark.parametrize("first", [[1], [2**40], [0.1], [True]])
def test_blocks_of_several_types_are_joined_as_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: list[object], last: list[object]
) -> None:
    monkeypatch.setattr(mapping, "SPILLED", 0)
    blocks = [np.array(first * 3), np.array(last * 2), np.array(first)]
    with mapping.spilled(tmp_path):
        joined = mapping.gathered(iter(blocks))
    expected = np.concatenate(blocks)
    assert joined.dtype == expected.dtype
    assert joined.tolist() == expected.tolist()
