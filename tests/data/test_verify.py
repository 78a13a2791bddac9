"""Files that are missing, truncated, edited or of another version are found, in one line each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers.encoded import Store

from pmpo_offline import data
from pmpo_offline.data import columns
from pmpo_offline.data.storage import problems
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError

ID = "test/small-v0"
FILES = {
    "arrow": ["transitions.arrow", "episodes.arrow", "candidates.arrow", "README.md"],
    "hdf5": ["data/main_data.hdf5", "data/metadata.json", "episodes.hdf5", "candidates.hdf5", "README.md"],
}
CASES = [(form, name) for form, names in FILES.items() for name in names]


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((path / "dataset.json").read_text())
    change(content)
    (path / "dataset.json").write_text(json.dumps(content))


def refused(kind: type[Exception] = PmpoOfflineError) -> str:
    with pytest.raises(kind) as error:
        data.load_dataset(ID)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("form", "name"), CASES)
def test_an_edited_byte_is_found(store: Store, form: data.Format, name: str) -> None:
    path = store(format=form, candidates=4).path / name
    assert data.verify(ID) == []
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert data.verify(ID) == [f"{name}: edited after it was written (its sha256 differs)"]


@pytest.mark.parametrize(("form", "name"), CASES)
def test_a_truncated_file_is_found_and_not_opened(store: Store, form: data.Format, name: str) -> None:
    path = store(format=form, candidates=4).path / name
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-8])
    assert data.verify(ID) == [f"{name}: {size - 8} bytes instead of {size}"]
    assert f"{name}: {size - 8} bytes instead of {size}; build it again with --overwrite" in refused()


@pytest.mark.parametrize(("form", "name"), CASES)
def test_a_missing_file_is_found_and_not_opened(store: Store, form: data.Format, name: str) -> None:
    (store(format=form, candidates=4).path / name).unlink()
    assert data.verify(ID) == [f"{name}: missing"]
    assert f"{name}: missing" in refused()


@pytest.mark.parametrize("form", ["arrow", "hdf5"])
def test_files_of_the_right_size_and_the_wrong_content_end_in_one_line(store: Store, form: data.Format) -> None:
    dataset = store(format=form)
    for name in dataset.metadata.files:
        if name.endswith((".arrow", ".hdf5")):
            path = dataset.path / name
            path.write_bytes(b"\0" * path.stat().st_size)
    assert "cannot be read" in refused()
    assert len(data.verify(ID)) == 2


def test_another_schema_version_is_refused_with_a_remedy(store: Store) -> None:
    rewrite(store().path, lambda content: content.update(schema_version=2, new_field="of the future"))
    assert "has schema version 2, this pmpo-offline reads 1: build it again" in refused(UserError)
    assert len(data.verify(ID)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("counts"), "counts: field required"),
        (lambda content: content.update(kind="films"), ": kind: input"),
        (lambda content: content.update(surprise=1), "unknown key 'surprise'"),
        (lambda content: content.pop("schema_version"), "no JSON with a schema_version"),
    ],
)
def test_malformed_metadata_names_the_field(
    store: Store, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    rewrite(store().path, change)
    assert message in refused()
    assert message in data.verify(ID)[0]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"3"])
def test_metadata_that_is_no_json_ends_in_one_line(store: Store, content: bytes) -> None:
    (store().path / "dataset.json").write_bytes(content)
    assert "is damaged: no JSON with a schema_version" in refused()


def test_edited_counts_are_found(store: Store) -> None:
    rewrite(store().path, lambda content: content["counts"].update(accepted=99))
    assert data.verify(ID) == [
        "dataset.json: 99 accepted, 3 rejected, 0 unlabelled; the tables hold 3, 3, 0",
    ]


def test_edited_counts_of_candidates_are_found(store: Store) -> None:
    rewrite(store([4], candidates=4).path, lambda content: content["candidates"].update(rejected=0))
    assert data.verify(ID) == [
        "dataset.json: candidates 4 accepted, 0 rejected, 0 unlabelled; the tables hold 4, 4, 0",
    ]


@pytest.mark.parametrize("name", ["labelled_reject_mass", "reject_share"])
def test_edited_shares_are_found(store: Store, name: str) -> None:
    dataset = store()
    rewrite(dataset.path, lambda content: content.update({name: 0.125}))
    true = getattr(dataset.metadata, name)
    assert data.verify(ID) == [f"dataset.json: {name} 0.125, the tables give {true:g}"]


def test_a_row_labelled_unlike_its_episode_is_found(store: Store) -> None:
    dataset = store([3, 1, 4], label="success")
    flipped = pa.array(np.where(np.arange(8) < 4, columns.labels(dataset.table) < 0, columns.labels(dataset.table) > 0))
    tables = {"transitions": columns.replace(dataset.table, label=flipped), "episodes": dataset.episodes}
    assert "transitions.label: differs from the label of its episode" in problems(dataset.metadata, tables)


def test_rows_that_are_out_of_place_are_found(store: Store) -> None:
    dataset = store([3, 1, 4], candidates=4)
    tables = {"transitions": dataset.table, "episodes": dataset.episodes, "candidates": dataset.candidates}
    assert problems(dataset.metadata, tables) == []
    shuffled = dataset.table.take([1, 0, 2, 3, 4, 5, 6, 7])
    assert problems(dataset.metadata, tables | {"transitions": shuffled}) == [
        "transitions.step: does not count each episode's rows from 0"
    ]
    far = columns.replace(dataset.candidates, row=pa.array(columns.vector(dataset.candidates, "row") + 8))
    assert problems(dataset.metadata, tables | {"candidates": far}) == ["candidates.row: points outside transitions"]


def test_verifying_an_unknown_dataset_is_a_user_error(home: Path) -> None:
    with pytest.raises(UserError, match="unknown dataset"):
        data.verify(ID)
