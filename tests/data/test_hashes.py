"""Hashes of datasets: `content_hash` of what is stored, `fingerprint` of what is in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers.encoded import Store
from helpers.labelled import labelled

from pmpo_offline import data
from pmpo_offline.data.columns import hash_tables


def responses(directory: Path, format: data.Format = "arrow", **changes: Any) -> data.Dataset:
    columns = {
        "prompt": ["a", "a", "b"],
        "completion": ["x", "y", "z"],
        "score": [1.0, 0.0, None],
        "label": pa.nulls(3, pa.bool_()),
        "prompt_id": [0, 0, 1],
        "response_id": [0, 1, 2],
        "source": ["test"] * 3,
        "split": ["train", "train", "test"],
    }
    provenance = data.Provenance(settings=changes.pop("settings", {}))
    rows = pa.table(columns | changes, schema=data.responses_schema())
    metadata, tables = labelled(rows, None, "reward:0.5", task="language/test", provenance=provenance)
    data.write(directory, metadata, tables, form=format)
    return data.open_dataset(directory)


def test_equal_responses_have_one_digest_in_either_format(tmp_path: Path) -> None:
    digest = responses(tmp_path / "one").content_hash
    assert len(digest) == 64
    assert responses(tmp_path / "two", source=["else"] * 3).content_hash == digest
    assert responses(tmp_path / "three", "hdf5").content_hash == digest


@pytest.mark.parametrize(
    "change",
    [
        {"split": ["train", "train", "train"]},
        {"split": ["test", "test", "train"]},
        {"completion": ["x", "y", "zz"]},
        {"prompt": ["a", "ax", "b"], "completion": ["x", "y", "z"]},
        {"score": [1.0, 1.0, None]},
        {"settings": {"tokens": 5}},
        {"settings": {"ends": False}},
    ],
)
def test_another_split_text_score_or_end_has_another_digest(tmp_path: Path, change: dict[str, Any]) -> None:
    assert responses(tmp_path / "one").content_hash != responses(tmp_path / "two", **change).content_hash


def test_transitions_are_known_by_their_files(store: Store) -> None:
    one, other = store([3, 1, 4]), store([3, 1, 5], id="test/other-v0")
    assert one.content_hash != other.content_hash
    assert one.relabelled("success").content_hash == one.content_hash


def content(rows: int = 300_000) -> pa.Table:
    values = np.arange(rows, dtype=np.float32)
    return pa.table(
        {
            "observation": pa.FixedSizeListArray.from_arrays(pa.array(np.repeat(values, 2)), 2),
            "score": pa.array(values, mask=values % 3 == 0),
            "label": pa.array(values > 5, mask=values % 7 == 0),
            "behavior": pa.array(["expert", "noisy"] * (rows // 2)),
        }
    )


def test_fingerprint_is_of_the_content_and_not_of_its_layout(tmp_path):
    table = content()
    chunked = pa.concat_tables([table.slice(0, 1001), table.slice(1001)])
    reordered = table.select(table.column_names[::-1])
    with pa.OSFile(str(tmp_path / "t.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    with pa.memory_map(str(tmp_path / "t.arrow")) as file:
        stored = pa.ipc.open_file(file).read_all()
        prints = {hash_tables({"table": t}) for t in (table, chunked, reordered, stored)}
    assert len(prints) == 1


def test_fingerprint_sees_every_change():
    table = content(14)
    prints = {hash_tables({"table": table}), hash_tables({"episodes": table}), hash_tables({"table": table.slice(1)})}
    for name in table.column_names:
        values = table[name].to_pylist()
        for index, value in ((8, None), (9, values[8])):
            changed = [*values[:index], value, *values[index + 1 :]]
            column = pa.array(changed, table[name].type)
            position = table.column_names.index(name)
            prints.add(hash_tables({"table": table.set_column(position, name, column)}))
    assert len(prints) == 3 + 8 - 1  # label 9 equals label 8 already


def test_fingerprint_is_equal_in_memory_and_stored(store: Store) -> None:
    built, relabelled = store(label="success", id="test/other-v0"), store(label="return").relabelled("success")
    assert (
        built.fingerprint == relabelled.fingerprint == store(label="success", format="hdf5", overwrite=True).fingerprint
    )
    assert built.fingerprint != built.relabelled(noise=1.0).fingerprint
