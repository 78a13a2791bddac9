"""Kinds of input that are easily read wrongly in silence: the right labels for several of each, or why there are none.

A case is a file, the options of its import, and what is right: the label of every completion, or a part of the error.
"""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.imports import labels, refused, warned
from helpers.texts import jsonl, said

from pmpo_offline.data.exchange.forms import files, sources
from pmpo_offline.runtime.errors import UserError

Rows = list[dict[str, Any]]
Right = dict[str, bool | None] | str


imported = partial(warned, id="test/x-v0", overwrite=True)


def check(source: Path, right: Right, **asked: Any) -> None:
    if isinstance(right, str):
        assert right in refused(imported, source, **asked)
    else:
        assert labels(imported(source, **asked)[0]) == right


def scored(*scores: Any, name: str = "score") -> Rows:
    return [{"prompt": f"p{i}", "response": f"r{i}", name: score} for i, score in enumerate(scores)]


def split_at(count: int, total: int) -> dict[str, bool | None]:
    return {f"r{i}": i < count for i in range(total)}


TIES: dict[str, tuple[Rows, dict[str, Any], Right]] = {
    "stars, mostly five": (scored(5, 5, 5, 5, 3, 1, name="stars"), {}, split_at(4, 6)),
    "stars, mostly one": (scored(5, 1, 1, 1, 1, 1, name="stars"), {}, split_at(1, 6)),
    "booleans as words": (scored("True", "True", "True", "false"), {}, split_at(3, 4)),
    "ratings of ±1 as texts": (scored("1", "1", "1", "-1", "-1"), {}, split_at(3, 5)),
    "sparse rewards": (scored(1.0, *[0.0] * 9, name="reward"), {}, split_at(1, 10)),
    "a third is best": (scored(2, 1, 0, 0, 0), {"threshold": "q0.9"}, split_at(1, 5)),
    "exactly the threshold": (scored(0.8, 0.7), {"threshold": "0.7"}, split_at(1, 2)),
    "exactly the threshold as text": (scored("0.31", "0.3"), {"threshold": "0.3"}, split_at(1, 2)),
    "at the edge of a margin": (scored(0.3, 0.2, 0.1), {"margin": 0.1}, dict.fromkeys(("r0", "r1", "r2"))),
    "within the margin": (scored(3, 2, 1), {"threshold": "2", "margin": 0.0}, split_at(1, 3)),
    "ranks": (scored(1, 2, 2, 2, name="rank"), {"score": "rank"}, split_at(1, 4)),
    "several completions that tie": (
        [{"prompt": "p", "completions": [{"response": f"r{i}", "rating": 5 if i < 3 else 2} for i in range(4)]}],
        {},
        split_at(3, 4),
    ),
    "unknown scores": (scored(1, None, float("nan"), 0), {}, {"r0": True, "r1": None, "r2": None, "r3": False}),
}


@pytest.mark.parametrize("case", TIES)
def test_ties_go_between_distinct_values(home: Path, tmp_path: Path, case: str) -> None:
    rows, asked, right = TIES[case]
    check(jsonl(tmp_path / "rows.jsonl", rows), right, **asked)


def test_a_rule_that_leaves_a_class_empty_says_so(home: Path, tmp_path: Path) -> None:
    for scores in ((1, 1, 1), (4.5, 4.5)):
        _, said = imported(jsonl(tmp_path / "rows.jsonl", scored(*scores)))
        assert any("nothing is accepted" in each for each in said)


PAIR = {"prompt": "q", "chosen": "good", "rejected": "bad"}
ROW = {"prompt": "q", "completion": "a", "label": True}
CHAT = {"messages": said("q", "a"), "label": True}
MEANINGFUL: dict[str, tuple[dict[str, Any], Right]] = {
    "two different prompts": (ROW | {"query": "other"}, "columns prompt and query hold different prompts"),
    "two different answers": (ROW | {"response": "b"}, "column response says something"),
    "an answer of reference": (ROW | {"answer": "42"}, {"a": True}),
    "messages that differ": (ROW | {"messages": said("q", "b")}, "column completion says something"),
    "conversations that differ": (CHAT | {"conversations": said("q", "b")}, "column conversations says something"),
    "a label beside a pair": (PAIR | {"label": 1}, "column label says something"),
    "a thumb beside a pair": (PAIR | {"thumbs_down": 1}, "column thumbs_down says something"),
    "a completion beside a pair": (PAIR | {"completion": "c"}, "column completion says something"),
    "two labels that differ": (ROW | {"kto_tag": "false"}, "columns label and kto_tag contradict each other"),
    "two labels that agree": (ROW | {"kto_tag": "yes"}, {"a": True}),
    "tools as text": (ROW | {"tools": '[{"name": "f"}]'}, "column tools is used"),
    "no tools": (ROW | {"tools": "[]", "images": None}, {"a": True}),
    "an image": (ROW | {"images": ["x.png"]}, "column images is used"),
    "a tool's turn": (
        {"messages": [*said("q"), {"role": "tool", "content": "x"}, *said("", "a")[1:]], "label": 1},
        "role 'tool'",
    ),
    "a call before the end": (
        {"messages": [said("q")[0], said("", "a")[1] | {"tool_calls": [{"name": "f"}]}, *said("r", "b")], "label": 1},
        "messages has tool_calls",
    ),
    "a call without text": (
        {
            "messages": [said("q")[0], {"role": "assistant", "content": None, "function_call": {"name": "f"}}],
            "label": 1,
        },
        "messages has function_call",
    ),
    "an unknown role": (
        {"messages": [{"role": "narrator", "content": "x"}, *said("q", "a")], "label": 1},
        "role 'narrator'",
    ),
    "a history that is no list": (ROW | {"history": "once upon a time"}, "in column history"),
    "two system messages": (ROW | {"system": "x", "system_prompt": "y"}, "hold different system messages"),
    "a list of documents": (ROW | {"documents": ["x"]}, "in documents, found ['x']"),
    "a path of an image": (ROW | {"image_path": "x.png"}, "column image_path is used"),
    "thoughts": ({"messages": [said("q")[0], said("", "a")[1] | {"thinking": "x"}], "label": 1}, "has thinking"),
    "a label that means nothing": (ROW | {"label": "LGTM"}, "found 'LGTM'"),
}


@pytest.mark.parametrize("case", MEANINGFUL)
def test_columns_that_mean_something_are_read_or_refused_by_name(home: Path, tmp_path: Path, case: str) -> None:
    row, right = MEANINGFUL[case]
    check(jsonl(tmp_path / "rows.jsonl", [row]), right)


def test_scores_that_compete_are_warned_of(home: Path, tmp_path: Path) -> None:
    rows = [row | {"reward": 0.25} for row in scored(5, 1, name="rating")]
    _, said = imported(jsonl(tmp_path / "rows.jsonl", rows))
    assert any("--score reward takes those instead" in each for each in said)
    assert any(
        "--score rating takes those" in each for each in imported(jsonl(tmp_path / "b.jsonl", [ROW | {"rating": 4}]))[1]
    )


ONE = json.dumps(said("q", "yes it is"))
LITERALS: dict[str, tuple[str, Right]] = {
    "JSON": (ONE, {"yes it is": True}),
    "Python": (str(said("q", "yes it is")), {"yes it is": True}),
    "Python with other quotes": (str(said("it's", 'say "yes"')), {'say "yes"': True}),
    "JSON in JSON": (json.dumps(ONE), {"yes it is": True}),
    "white space around it": (f"\n {ONE} ", {"yes it is": True}),
    "content before role": (
        json.dumps([{"content": t["content"], "role": t["role"]} for t in said("q", "a")]),
        {"a": True},
    ),
    "ShareGPT": (json.dumps([{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]), {"a": True}),
    "parts": (
        json.dumps([t | {"content": [{"type": "text", "text": t["content"]}]} for t in said("q", "a")]),
        {"a": True},
    ),
    "as NumPy prints it": (str(said("q", "a")).replace("}, {", "}\n {"), "expected a list as JSON or a Python literal"),
    "cut off": (ONE[:-12], "expected a list as JSON or a Python literal"),
    "no conversation": ("[1, 2]", "expected a list of messages"),
    "a call": ("[{'role': 'user', 'content': open('x')}]", "expected a list as JSON or a Python literal"),
}


@pytest.mark.parametrize("case", LITERALS)
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_literals_in_cells_are_parsed_or_refused_everywhere_alike(
    home: Path, tmp_path: Path, case: str, suffix: str
) -> None:
    text, right = LITERALS[case]
    path, rows = tmp_path / f"rows.{suffix}", pl.DataFrame([{"messages": text, "label": "yes"}])
    {"csv": rows.write_csv, "jsonl": rows.write_ndjson, "parquet": rows.write_parquet}[suffix](path)
    check(path, right)


CLASSES: dict[str, tuple[list[str], list[Any], list[bool | None]]] = {
    "reject first": (["reject", "accept"], [0, 1], [False, True]),
    "accept first": (["accept", "reject"], [0, 1], [True, False]),
    "chosen first": (["chosen", "rejected"], [0, 1], [True, False]),
    "capitals": (["POSITIVE", "NEGATIVE"], [0, 1], [True, False]),
    "safety": (["unsafe", "safe"], [1, 0], [True, False]),
    "one of three is no opinion": (["good", "neutral", "bad"], [1, 2], [None, False]),
    "none": (["good", "bad"], [-1, 1], [None, False]),
    "null": (["good", "bad"], [None, 0], [None, True]),
}


@pytest.mark.parametrize("case", CLASSES)
def test_names_of_classes_say_which_is_accepted(home: Path, tmp_path: Path, case: str) -> None:
    names, numbers, right = CLASSES[case]
    table = pa.table({"prompt": ["p", "q"], "completion": ["a", "b"], "label": pa.array(numbers, pa.int64())})
    features = {"label": {"names": names, "_type": "ClassLabel"}}
    pq.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}),
        tmp_path / "a.parquet",
    )
    check(tmp_path / "a.parquet", dict(zip("ab", right, strict=True)))


def test_classes_in_lists_and_classes_of_no_known_meaning(home: Path, tmp_path: Path) -> None:
    table = pa.table({"prompt": ["p"], "completions": [["a", "b"]], "labels": [[0, 1]]})
    for inner in ({"feature": {"names": ["ok", "fail"], "_type": "ClassLabel"}, "_type": "Sequence"},):
        said = {"huggingface": json.dumps({"info": {"features": {"labels": inner}}})}
        pq.write_table(table.replace_schema_metadata(said), tmp_path / "a.parquet")
        check(tmp_path / "a.parquet", "found 'ok'")
        check(tmp_path / "a.parquet", {"a": True, "b": False}, accept=("ok",))


def test_classes_inside_objects(home: Path, tmp_path: Path) -> None:
    kinds = {"names": ["good", "bad"], "_type": "ClassLabel"}
    texts = [{"text": "a", "score": 0}, {"text": "b", "score": 1}]
    object_ = pa.table({"prompt": ["p", "q"], "completion": ["a", "b"], "feedback": [{"rating": 0}, {"rating": 1}]})
    listed = pa.table({"prompt": ["p"], "completions": [texts]})
    for table, features in (
        (object_, {"feedback": {"rating": kinds}}),
        (listed, {"completions": [{"text": {"_type": "Value"}, "score": kinds}]}),
        (listed, {"completions": {"feature": {"score": kinds}, "_type": "List"}}),
    ):
        said = {"huggingface": json.dumps({"info": {"features": features}})}
        pq.write_table(table.replace_schema_metadata(said), tmp_path / "a.parquet")
        if table is object_:
            check(tmp_path / "a.parquet", {"a": True, "b": False})
        else:
            check(tmp_path / "a.parquet", "expected a number in column score, found 'good'")


HUMAN = "\n\nHuman: hi\n\nAssistant:"
MARKED: dict[str, tuple[dict[str, Any], Right]] = {
    "a pair": ({"prompt": HUMAN, "chosen": " a\n\nHuman: thanks", "rejected": " b"}, {"b": False}),
    "a row": ({"prompt": HUMAN, "completion": " a\n\nHuman: thanks", "label": True}, "goes on with a turn of the user"),
    "single lines": (
        {"chosen": "Human: hi\nAssistant: a\nHuman: x", "rejected": "Human: hi\nAssistant: b"},
        {"b": False},
    ),
    "other words": ({"prompt": "User: hi\nBot:", "chosen": " a\nUser: x", "rejected": " b"}, {"b": False}),
    "in one line": ({"prompt": "USER: hi ASSISTANT:", "chosen": " a USER: x", "rejected": " b"}, {"b": False}),
    "prose": ({"prompt": HUMAN, "completion": " to err is human: x", "label": True}, {"to err is human: x": True}),
    "no transcript": ({"prompt": "Continue", "completion": "\n\nHuman: x", "label": True}, {"Human: x": True}),
}


@pytest.mark.parametrize("case", MARKED)
def test_completions_that_go_on_with_the_user_are_dropped(home: Path, tmp_path: Path, case: str) -> None:
    row, right = MARKED[case]
    check(jsonl(tmp_path / "rows.jsonl", [row]), right)


BYTES = pa.array([b"text"], pa.binary())
BINARY: dict[str, tuple[dict[str, Any], str]] = {
    "prompt": ({"prompt": BYTES, "completion": ["c"], "label": [1]}, "in prompt, found bytes"),
    "completion": ({"prompt": ["p"], "completion": BYTES, "label": [1]}, "in completion, found bytes"),
    "large": ({"prompt": ["p"], "chosen": BYTES.cast(pa.large_binary()), "rejected": ["b"]}, "in chosen, found bytes"),
    "label": ({"prompt": ["p"], "completion": ["c"], "label": BYTES}, "in column label, found b'text'"),
    "content": (
        {"messages": [[{"role": "user", "content": b"q"}, {"role": "assistant", "content": b"a"}]], "label": [1]},
        "found bytes",
    ),
    "system": ({"prompt": ["p"], "system": BYTES, "completion": ["c"], "label": [1]}, "in system, found bytes"),
}


@pytest.mark.parametrize("case", BINARY)
def test_bytes_are_no_text(home: Path, tmp_path: Path, case: str) -> None:
    columns, right = BINARY[case]
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    check(tmp_path / "rows.parquet", f"row 1: expected {'true' if case == 'label' else 'text'}")
    check(tmp_path / "rows.parquet", right)


TRANSCRIPTS: dict[str, tuple[str, str, Right]] = {
    "sound": (f"{HUMAN} yes", f"{HUMAN} no", {"yes": True, "no": False}),
    "without blank lines before": (
        f"{HUMAN} I think yes".lstrip(),
        f"{HUMAN} I think no".lstrip(),
        {"I think yes": True, "I think no": False},
    ),
    "chosen ends with the human": (
        f"{HUMAN} yes\n\nHuman: thanks!",
        f"{HUMAN} no",
        "chosen does not end with the Assistant's turn",
    ),
    "rejected ends with the human": (
        f"{HUMAN} yes",
        f"{HUMAN} no\n\nHuman: bad!",
        "differ before the last Assistant turn",
    ),
    "both do": (f"{HUMAN} yes\n\nHuman: a", f"{HUMAN} no\n\nHuman: b", "chosen does not end with the Assistant's turn"),
    "another question": (f"{HUMAN} yes", "\n\nHuman: ho\n\nAssistant: no", "differ before the last Assistant turn"),
    "an empty reply": (f"{HUMAN} ", f"{HUMAN} no", {"no": False}),
}


@pytest.mark.parametrize("case", TRANSCRIPTS)
def test_transcripts(home: Path, tmp_path: Path, case: str) -> None:
    chosen, rejected, right = TRANSCRIPTS[case]
    check(jsonl(tmp_path / "rows.jsonl", [{"chosen": chosen, "rejected": rejected}]), right)


def test_a_source_with_a_prompt_in_both_of_its_splits_is_warned_of(home: Path, tmp_path: Path) -> None:
    for split, prompts in (("train_prefs", "abc"), ("test_prefs", "cd")):
        jsonl(tmp_path / f"{split}.jsonl", [{"prompt": text, "completion": "x", "label": 1} for text in prompts])
    dataset, said = imported(tmp_path)
    assert any("1 prompts are in both of the source's splits" in each for each in said)
    assert sorted(zip(dataset.table["prompt"].to_pylist(), dataset.table["split"].to_pylist(), strict=True)) == [
        *(("a", "train"), ("b", "train"), ("c", "test"), ("c", "train"), ("d", "test")),
    ]


def test_options_without_an_effect_are_refused_or_warned_of(home: Path, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [ROW])
    check(path, "no column redacted tells", redacted="drop")
    check(path, "no column language tells", languages=("English",))
    check(path, "accept maybe: no row holds it, they hold true", accept=("maybe",))
    check(path, "a threshold is for scores", threshold="0.5")
    pair = jsonl(tmp_path / "pair.jsonl", [PAIR])
    check(pair, "accept yes: no row holds it, they hold chosen, rejected", accept=("yes",))


FILES: dict[str, tuple[str, bytes, Right]] = {
    "semicolons": ("a.csv", b'question;answer;thumbsUp\n"what; now";fine;yes\nq;b;no\n', {"fine": True, "b": False}),
    "tabs": ("a.tsv", b"query\tresponse\tvote\nq\ta\t+1\nr\tb\t-1\n", {"a": True, "b": False}),
    "tabs in a .csv": ("a.csv", b"query\tresponse\tvote\nq\ta,b\t+1\nr\tb\t-1\n", {"a,b": True, "b": False}),
    "bars": ("a.csv", b"prompt|completion|label\nq|a|yes\nr|b|no\n", {"a": True, "b": False}),
    "blanks after commas": (
        "a.csv",
        b'prompt, completion, label\n"q", "a, b", yes\nr, c, no\n',
        {"a, b": True, "c": False},
    ),
    "Excel's first line": (
        "a.csv",
        b"sep=;\r\nprompt;completion;label\r\nq;a;yes\r\nr;b;no\r\n",
        {"a": True, "b": False},
    ),
    "a column of numbers": ("a.csv", b",prompt,completion,label\n0,q,a,1\n1,r,b,0\n", {"a": True, "b": False}),
    "lines of the Macintosh": ("a.csv", b"prompt,completion,label\rq,a,1\rr,b,0\r", {"a": True, "b": False}),
    "a byte order mark": ("a.csv", b"\xef\xbb\xbfprompt,completion,label\nq,a,1\n", {"a": True}),
    "empty columns at the end": (
        "a.csv",
        b"prompt,completion,label,,\nq,a,1,,\nr,b,0,,\n,,,,\n",
        {"a": True, "b": False},
    ),
    "tabs without quotes": (
        "a.tsv",
        b'prompt\tcompletion\tlabel\nq\t"a" x\t1\nr\t"b"\t0\n',
        {'"a" x': True, '"b"': False},
    ),
    "two columns of one name": ("a.csv", b"prompt,completion,label,label\nq,a,1,0\n", "several columns called label"),
    "two values of one name": (
        "a.jsonl",
        b'{"prompt": "q", "completion": "a", "label": 1, "label": 0}',
        "holds two values called label",
    ),
    "an unclosed quote": ("a.csv", b'prompt,completion,label\nq,"a,1\n', "a quote that is never closed"),
    "Latin-1": ("a.jsonl", b'{"prompt": "caf\xe9"}', "line 1: not valid UTF-8"),
    "lists by split": (
        "a.json",
        json.dumps({"train": [ROW], "test": [ROW | {"completion": "b", "label": 0}]}).encode(),
        {"a": True, "b": False},
    ),
    "a list called data": ("a.json", b'{\n"data": [{"prompt": "q", "completion": "a", "label": 1}]}', {"a": True}),
    "one object over lines": ("a.json", b'{\n"prompt": "q",\n"completion": "a",\n"label": 1}', {"a": True}),
    "junk": ("a.jsonl.gz", b"junk", "damaged or no JSON lines file"),
    "junk in Zstandard": ("a.csv.zst", b"junk", "damaged or no CSV file"),
}


@pytest.mark.parametrize("case", FILES)
def test_files_as_people_write_them(home: Path, tmp_path: Path, case: str) -> None:
    name, content, right = FILES[case]
    (tmp_path / name).write_bytes(content)
    check(tmp_path / name, right)


@pytest.mark.parametrize(("ending", "codec"), [("gz", "gzip"), ("zst", "zstd"), ("bz2", "bz2")])
def test_compressed_texts(home: Path, tmp_path: Path, ending: str, codec: str) -> None:
    for name in ("rows.jsonl", "rows.json", "rows.csv"):
        content = b"prompt,completion,label\nq,a,1\n" if name.endswith("csv") else json.dumps(ROW).encode()
        with pa.output_stream(str(tmp_path / f"{name}.{ending}"), compression=codec) as file:
            file.write(content)
        check(tmp_path / f"{name}.{ending}", {"a": True})


def test_folders_that_are_no_data_set(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    check(tmp_path / "pipe.jsonl", "there is no such file")
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    check(tmp_path / "loop.jsonl", "there is no such file")
    jsonl(tmp_path / "rows.jsonl", [ROW])
    check(tmp_path, {"a": True})
    monkeypatch.setattr(files, "MOST_FILES", 3)  # as `import /` has far too many
    with pytest.raises(UserError, match="holds more than 3 files: give the folder of one data set"):
        sources.is_text(str(tmp_path))


def test_a_log_of_other_names(home: Path, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user_text;bot_text;verdict\nhello;hi;fine\nbye;no;poor\nok;so;\n")
    columns = ("prompt=user_text", "completion=bot_text", "label=verdict")
    check(tmp_path / "log.csv", "not recognised by the columns user_text, bot_text, verdict: say what they mean")
    check(tmp_path / "log.csv", {"hi": True, "no": False, "so": None}, columns=columns, accept=("fine",))
    check(tmp_path / "log.csv", "accept fin: no row holds it, they hold fine, poor", columns=columns, accept=("fin",))
    check(
        tmp_path / "log.csv", "unknown meaning of a column 'foo': known: chosen, completion", columns=("foo=verdict",)
    )
