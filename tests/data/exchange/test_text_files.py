"""Kinds of files, splits and conversations that are easily read wrongly in silence: what is right for each."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.imports import frame, refused, report
from helpers.imports import imported as quietly
from helpers.texts import jsonl, said

from pmpo_offline.data import Dataset
from pmpo_offline.data.exchange.export import export_dataset
from pmpo_offline.data.exchange.forms.row import Message
from pmpo_offline.data.exchange.forms.templates import side_of

LABELLED = [("p1", 'an " odd one', "1"), ("p2", "fine", "0"), ("p3", 'another " one', "1"), ("p4", "ok", "0")]
FEATURES = {
    "prompt": {"dtype": "string", "_type": "Value"},
    "label": {"names": ["accept", "reject"], "_type": "ClassLabel"},
}


pytestmark = pytest.mark.usefixtures("home")
imported = partial(quietly, id="test/x-v0", overwrite=True)
refusal = partial(refused, imported)


def labels(dataset: Dataset) -> dict[str, bool]:
    return dict(frame(dataset).select("completion", "label").iter_rows())


def csv(path: Path, separator: str = ",", quote: str = '""', encoding: str = "utf-8") -> Path:
    lines = [separator.join(("prompt", "completion", "label"))]
    for prompt, completion, label in LABELLED:
        text = completion.replace('"', quote)
        lines.append(separator.join((prompt, f'"{text}"' if text != completion else completion, label)))
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


@pytest.mark.parametrize(
    "written",
    [{"quote": '\\"'}, {"separator": ";"}, {"separator": "\t"}, {"encoding": "utf-16"}, {"encoding": "utf-8-sig"}],
    ids=str,
)
def test_dialects_of_csv(tmp_path: Path, written: dict[str, str]) -> None:
    found = frame(imported(csv(tmp_path / "rows.csv", **written))).select("prompt", "completion", "label").rows()
    assert found == [(prompt, completion, label == "1") for prompt, completion, label in LABELLED]


def test_backslashes_of_spark_are_unescaped_only_before_quotes_and_themselves(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('prompt,completion,label\np,"a \\"b\\" \\n c\\\\",1\n"q \\" r",d,0\n')
    assert frame(imported(path))["completion"].to_list() == ['a "b" \\n c\\', "d"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"prompt,completion,label\np,c,1\np,c,1,4\n", "a.csv, line 3: 4 fields, and the header has 3"),
        (b"prompt,completion,label\np,c\n", "a.csv, line 2: 2 fields, and the header has 3"),
        (b'prompt,completion,label\np,"c" d,1\n', "line 2: text after a closing quote"),
        (b"prompt,completion,label\np,c,1\ncaf\xe9,c,1\n", "a.csv, line 3: not valid UTF-8: convert the file"),
    ],
)
def test_rows_of_csv_that_are_damaged_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    assert message in refusal(tmp_path / "a.csv")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_encodings_of_json(tmp_path: Path, name: str, encoding: str) -> None:
    found = [
        {"prompt": "ü\u2028", "completion": "漢 🙂", "label": True},
        {"prompt": "p", "completion": "c", "label": 0},
    ]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in found)
    text = lines if name == "rows.jsonl" else json.dumps(found, ensure_ascii=False)
    (tmp_path / name).write_text(text, encoding=encoding)
    assert labels(imported(tmp_path / name)) == {"漢 🙂": True, "c": False}


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_the_names_of_hugging_faces_classes_say_which_is_accepted(tmp_path: Path, suffix: str) -> None:
    table = pa.table({"prompt": ["p", "q"], "completion": ["good one", "bad one"], "label": [0, 1]})
    said = {"huggingface": json.dumps({"info": {"features": FEATURES}})}
    table = table.replace_schema_metadata(said)
    path = tmp_path / f"rows.{suffix}"
    if suffix == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_stream(path, table.schema) as file:
            file.write_table(table)
    assert labels(imported(path)) == {"good one": True, "bad one": False}
    assert report(imported(path))["labels"] == {"accept": "accept", "reject": "reject"}


# Splits


def test_a_source_keeps_its_own_splits(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "data").mkdir(parents=True)
    for split, start in (("train", 0), ("validation", 100)):
        found = [{"prompt": f"p{start + i}", "completion": "x", "label": i % 2} for i in range(20)]
        pq.write_table(pa.Table.from_pylist(found), folder / f"data/{split}-00000-of-00001.parquet")
    dataset = imported(folder)
    held_out = frame(dataset).filter(pl.col("split") == "test")["prompt"].to_list()
    assert sorted(held_out) == [f"p{100 + i}" for i in range(20)]
    assert report(dataset)["split"] == "as in the source"
    assert frame(imported(folder, test_share=0.0))["split"].unique().to_list() == ["train"]
    column = [{"prompt": f"p{i}", "completion": "x", "label": 1, "split": ("train", "test")[i > 6]} for i in range(9)]
    path = jsonl(tmp_path / "rows.jsonl", column)
    assert frame(imported(path))["split"].to_list() == ["train"] * 7 + ["test"] * 2
    # Where nothing is held out, the split goes by the prompts.
    without = jsonl(tmp_path / "without.jsonl", [row | {"split": "train"} for row in column])
    plain = jsonl(tmp_path / "plain.jsonl", [{k: v for k, v in row.items() if k != "split"} for row in column])
    assert frame(imported(without, test_share=None))["split"].equals(frame(imported(plain))["split"])


MARKUPS = {  # the prompt of the first turn, and what follows it before the second answer
    "Human": ("\n\nHuman: {q}\n\nAssistant:", " {a}\n\nHuman: {r}\n\nAssistant:"),
    "User": ("User: {q}\nAssistant:", " {a}\nUser: {r}\nAssistant:"),
    "Vicuna": ("Be kind. USER: {q} ASSISTANT:", " {a}</s>USER: {r} ASSISTANT:"),
    "INST": ("<s>[INST] {q} [/INST]", " {a} </s><s>[INST] {r} [/INST]"),
    "ChatML": (
        "<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n",
        "{a}<|im_end|>\n<|im_start|>user\n{r}<|im_end|>\n<|im_start|>assistant\n",
    ),
}
GREETINGS = {
    "Human": "\n\nAssistant: Hi!",
    "User": "Assistant: Hi!\n",
    "ChatML": "<|im_start|>assistant\nHi!<|im_end|>\n",
}


@pytest.mark.parametrize("name", MARKUPS)
def test_conversations_in_one_text_split_fairly_and_stay_whole(name: str) -> None:
    first, more = MARKUPS[name]
    for start in {"", GREETINGS.get(name, "")}:
        sides = []
        for i in range(300):
            words = {"q": f"question {i}", "a": f"answer {i}", "r": f"again {i}"}
            sides.append(side_of((start + first).format(**words)))
            assert side_of((start + first + more).format(**words)) == sides[-1]
        assert 0.04 < sum(side < 0.1 for side in sides) / len(sides) < 0.17


def test_conversations_split_by_their_turns_and_not_by_words_in_them() -> None:
    def side(*turns: tuple[str, str]) -> float:
        return side_of(tuple(Message(*turn) for turn in turns))

    system = ("system", "You are an assistant: be kind")
    greeting = ("assistant", "Hello, how can I help?")
    for start in ((), (system,), (greeting,), (system, greeting)):
        sides = [side(*start, ("user", f"question {i}")) for i in range(300)]
        assert 0.04 < sum(each < 0.1 for each in sides) / len(sides) < 0.17
        later = [side(*start, ("user", f"question {i}"), greeting, ("user", "more")) for i in range(300)]
        assert later == sides
    assert side(greeting, ("user", "q")) == side(("user", "q"))
    assert side(("user", "q")) == side_of("\n\nHuman: q\n\nAssistant:")


# What an import makes of its rows


def test_a_template_that_refuses_a_conversation_costs_that_row(tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"?": 0}, unk_token="?")))
    tokenizer.chat_template = (
        "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}[{{ m['content'] }}]{% endfor %}"
    )
    tokenizer.save_pretrained(tmp_path / "model")
    twice = [said("a")[0], *said("a2", "c")]
    found = [{"messages": said("a", "b"), "label": 1}, {"messages": twice, "label": 0}]
    dataset = imported(jsonl(tmp_path / "rows.jsonl", found), template=tmp_path / "model")
    assert frame(dataset)["completion"].to_list() == ["b"]
    reason = "the chat template refuses the conversation: roles must alternate"
    assert report(dataset)["dropped"] == {reason: 1}
    assert report(dataset)["first_dropped"] == {reason: "rows.jsonl, line 2"}


def test_pairs_that_were_exported_come_back_as_the_responses_that_they_are_of(tmp_path: Path) -> None:
    found = [{"prompt": f"p{i}", "completion": f"c{i}{k}", "label": k < 2} for i in range(40) for k in range(5)]
    first = imported(jsonl(tmp_path / "rows.jsonl", found))
    pairs = export_dataset(first, "trl", tmp_path / "out") / "dpo"
    back = imported(pairs)
    assert frame(back).drop("source").equals(frame(first).drop("source"))
    assert report(back)["dropped"] == {"the same response as in another pair": 280}


def test_responses_that_contradict_each_other_are_counted(tmp_path: Path) -> None:
    found = [{"prompt": "p", "completion": text, "label": label} for text, label in (("a", 1), ("a", 0), ("b", 1))]
    assert report(imported(jsonl(tmp_path / "rows.jsonl", found)))["contradicting"] == 2
