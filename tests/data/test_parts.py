"""Large tables in part files: the same content as in one file, for us and for other readers; damage is found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch
from helpers.encoded import Store, observed

from pmpo_offline import data
from pmpo_offline.data import Rows, columns, mapping
from pmpo_offline.data.checks import derived_problems, problems
from pmpo_offline.runtime.errors import PmpoOfflineError

LENGTHS = [3, 1, 4, 7, 2]


@pytest.fixture
def store(write_anew: Store) -> Store:
    """Other parts than a dataset of another test has."""
    return write_anew


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Part files of five transitions, and columns read three rows at a time."""
    row = sum(mapping._width(kind) for kind in data.transitions_schema(3, 2).types)
    monkeypatch.setattr(mapping, "PART_BYTES", 5 * row)
    monkeypatch.setattr(columns, "BLOCK", 3)


def test_rows_of_a_part_fill_it() -> None:
    # 17 + 6 numbers of 4 bytes, reward, episode, step and score of 4, two flags and a label of 1
    assert mapping.rows_of_part(data.transitions_schema(17, 6)) == mapping.PART_BYTES // (4 * 23 + 4 * 4 + 3)


@pytest.mark.parametrize("label", ["success", "advantage", "return_to_go:q0.5"])
def test_parts_hold_what_one_file_holds(store: Store, request: pytest.FixtureRequest, label: str) -> None:
    whole = store(LENGTHS, label, candidates=4, imbalance=0.4, noise=0.2)
    assert {path.name for path in whole.path.glob("*.arrow")} == {
        "transitions.arrow",
        "episodes.arrow",
        "candidates.arrow",
    }
    hashes, fingerprint = whole.metadata.files, whole.fingerprint
    kept = {name: table.combine_chunks() for name, table in whole.stored.items()}
    request.getfixturevalue("small_parts")
    split = store(LENGTHS, label, candidates=4, imbalance=0.4, noise=0.2, overwrite=True)
    found = sorted(path.name for path in split.path.glob("transitions*"))
    assert found == [f"transitions-{part:05d}.arrow" for part in range(4)], "17 rows in parts of 5"
    assert set(found) < set(split.metadata.files)
    assert split.table.column("label").num_chunks == 4
    for name, table in split.stored.items():
        assert table.equals(kept[name])
    assert split.fingerprint == fingerprint
    assert split.metadata.model_copy(update={"files": {}}) == whole.metadata.model_copy(update={"files": {}})
    assert data.verify(split.path) == []
    again = store(LENGTHS, label, candidates=4, imbalance=0.4, noise=0.2, overwrite=True)
    assert again.metadata.files == split.metadata.files != hashes


def test_parts_are_gathered_from_as_one_table(store: Store, small_parts: None) -> None:
    dataset = store(LENGTHS, "success")
    batch = dataset.sample(500, torch.Generator().manual_seed(0))
    episode, step = batch["episode"].numpy(), batch["step"].numpy()
    assert len(set(batch["row"].tolist())) == sum(LENGTHS)
    np.testing.assert_array_equal(batch["observation"].numpy(), observed(episode, step))
    np.testing.assert_array_equal(batch["next_observation"].numpy(), observed(episode, step + 1))
    assert batch["label"].dtype == torch.float32
    np.testing.assert_array_equal(batch["label"].numpy(), columns.labels(dataset.table)[batch["row"]])
    rows = Rows.of(dataset)
    np.testing.assert_array_equal(rows.states[rows.next_row].numpy(), observed(rows.episode.numpy(), _steps() + 1))


def _steps() -> np.ndarray:
    return np.concatenate([np.arange(length) for length in LENGTHS])


def test_other_libraries_read_parts_by_a_pattern(store: Store, small_parts: None, hugging_face) -> None:
    dataset = store(LENGTHS, "success")
    card = (dataset.path / "README.md").read_text(encoding="utf-8")
    assert 'polars.scan_ipc("transitions-*.arrow")' in card
    frame = pl.scan_ipc(dataset.path / "transitions-*.arrow").collect()
    assert frame["label"].to_list() == dataset.table["label"].to_pylist()
    assert frame["step"].to_list() == _steps().tolist()
    loaded = hugging_face(dataset.path)["train"]
    assert loaded["step"][:] == _steps().tolist()
    assert loaded.features["observation"].length == 3


def test_a_missing_or_foreign_part_is_damage(store: Store, small_parts: None) -> None:
    dataset = store(LENGTHS, "success")
    first, second = (dataset.path / f"transitions-{part:05d}.arrow" for part in (0, 1))
    content = second.read_bytes()
    second.unlink()
    assert data.verify(dataset.path) == ["transitions-00001.arrow: missing"]
    with pytest.raises(PmpoOfflineError, match=r"transitions-00001\.arrow: missing"):
        data.load_dataset(dataset.path)
    second.write_bytes(bytes([*content[:-20], content[-20] ^ 1, *content[-19:]]))
    assert "edited after it was written" in data.verify(dataset.path)[0]
    second.write_bytes(content)
    assert data.verify(dataset.path) == []
    listed = json.loads((dataset.path / "dataset.json").read_text(encoding="utf-8"))["files"]
    del listed[first.name]
    with pytest.raises(ValueError, match="not one or parts from 00000 on"):
        mapping.read_parts(dataset.path, listed)


def test_parts_of_different_columns_are_refused(tmp_path: Path) -> None:
    for part, name in enumerate("ab"):
        table = pa.table({name: [1, 2]})
        with pa.ipc.new_file(tmp_path / f"t-{part:05d}.arrow", table.schema) as file:
            file.write_table(table)
    with pytest.raises(ValueError, match="different columns"):
        mapping.read_parts(tmp_path, ["t-00000.arrow", "t-00001.arrow"])


@pytest.mark.parametrize(
    ("column", "row", "value", "expected"),
    [
        ("episode", 9, 0, "transitions.episode: differs from the episodes"),
        ("step", 12, 0, "transitions.step: does not count"),
        ("terminated", 8, True, "row 8 is terminated or truncated before the end"),
        ("reward", 13, 1e3, "episodes.return: differs from the sum"),
        ("label", 16, None, "transitions.label: differs from"),
    ],
)
def test_contradictions_are_found_in_every_part(
    store: Store, small_parts: None, column: str, row: int, value: object, expected: str
) -> None:
    dataset = store(LENGTHS, "success")
    field = dataset.table.schema.field(column)
    values = dataset.table[column].to_pylist()
    values[row] = value
    position = dataset.table.schema.get_field_index(column)
    changed = dataset.table.set_column(position, field, pa.chunked_array([pa.array(values, field.type)]))
    tables = {"transitions": changed, **dataset.others}
    found = [*problems(dataset.metadata, tables), *derived_problems(dataset.metadata, tables)]
    assert any(expected in line for line in found), found


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("apart", [1, 1 << 20], ids=["by position", "in the order of addresses"])
def test_rows_of_files_larger_than_memory_are_found(store: Store, monkeypatch: pytest.MonkeyPatch, apart: int) -> None:
    dataset = store(LENGTHS, "advantage")
    samples = {count: dataset.sample(count, torch.Generator().manual_seed(0)) for count in (40, 200)}  # few, and many
    monkeypatch.setattr("pmpo_offline.data.mapping.RESIDENT", 0)
    monkeypatch.setattr("pmpo_offline.data.gathering._WIDE", 8)
    monkeypatch.setattr("pmpo_offline.data.gathering._APART", apart)
    opened = data.load_dataset(dataset.path)
    read = {name: opened.column(name) for name in ("observation", "action", "reward")}
    assert [column._places is not None for column in read.values()] == [True, True, False]
    for count, expected in samples.items():
        found = opened.sample(count, torch.Generator().manual_seed(0))
        assert list(found) == list(expected)
        for name, values in expected.items():
            assert found[name].dtype == values.dtype
            np.testing.assert_array_equal(found[name].numpy(), values.numpy(), name)
    rows = torch.tensor([[0, 16], [4, 5]])  # both ends of the first part
    np.testing.assert_array_equal(read["action"][rows].numpy(), columns.matrix(opened.table, "action")[rows.numpy()])
    assert len(opened.sample(0)["observation"]) == 0
    with pytest.raises(IndexError):
        read["action"][torch.tensor([17])]


def test_a_wrong_offset_of_a_text_is_found_on_opening(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    table = pa.table({"text": ["one", "two", "three"] * 20, "n": list(range(60))})
    with pa.ipc.new_file(path, table.schema) as file:
        file.write_table(table)
    assert mapping.read_arrow(path).equals(table)
    offsets = np.cumsum([0, *map(len, table["text"].to_pylist())]).astype(np.int32)
    content = path.read_bytes()
    place = content.index(offsets.tobytes())
    for wrong in (-5, 2**30):
        damaged = bytearray(content)
        damaged[place + 80 : place + 84] = np.int32(wrong).tobytes()
        path.write_bytes(damaged)
        with pytest.raises(pa.ArrowInvalid, match="offset"):
            mapping.read_arrow(path)
