"""Whether two datasets hold the same, told by one hash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from helpers.encoded import Store

from pmpo_offline import data
from pmpo_offline.data.digest import content_digest


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
    told = changes.pop("settings", {})
    rule = data.LabelRule.parse("reward:0.5")
    done = data.label_tables(pa.table(columns | changes, schema=data.responses_schema()), None, rule)
    metadata = data.Metadata(
        id="test/texts-v0",
        kind="responses",
        task="language/test",
        score=data.ScoreRule(name="reward"),
        label=rule,
        provenance=data.Provenance(settings=told),
        **done.described,
    )
    data.write(directory, metadata, {"responses": done.table}, format=format)
    return data.open_dataset(directory)


def test_equal_responses_have_one_digest_in_either_format(tmp_path: Path) -> None:
    digest = content_digest(responses(tmp_path / "one"))
    assert len(digest) == 64
    assert content_digest(responses(tmp_path / "two", source=["else"] * 3)) == digest
    assert content_digest(responses(tmp_path / "three", "hdf5")) == digest


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
    assert content_digest(responses(tmp_path / "one")) != content_digest(responses(tmp_path / "two", **change))


def test_transitions_are_known_by_their_files(store: Store) -> None:
    one, other = store([3, 1, 4]), store([3, 1, 5], id="test/other-v0")
    assert content_digest(one) != content_digest(other)
    assert content_digest(one.relabelled("success")) == content_digest(one)
