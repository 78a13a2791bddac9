"""What a text's columns and files say beside prompts and answers is used, refused by name or counted in the report."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers.imports import imported as quietly
from helpers.imports import labels, refused, report, responses, warned
from helpers.texts import jsonl
from helpers.texts import said as turns

Rows = list[dict[str, Any]]
pytestmark = pytest.mark.usefixtures("home")
imported = partial(quietly, id="test/x-v0", overwrite=True)


def rows_with(**columns: list[Any]) -> Rows:
    """Four labelled rows with more columns."""
    rows: Rows = [{"prompt": f"p{i}", "completion": f"r{i}", "label": i % 2 == 0} for i in range(4)]
    return [row | {name: values[i] for name, values in columns.items()} for i, row in enumerate(rows)]


def splits(path: Path) -> list[str]:
    table = imported(path).table
    found = dict(zip(table["completion"].to_pylist(), table["split"].to_pylist(), strict=True))
    return [found[f"r{i}"] for i in range(4)]


# Splits


@pytest.mark.parametrize(
    "values", [["yes", "no"] * 2, ["T", "f"] * 2, ["Y", "N"] * 2, [1.0, 0.0] * 2, [True, False] * 2]
)
def test_flags_of_a_split_may_be_words(tmp_path: Path, values: list[Any]) -> None:
    assert splits(jsonl(tmp_path / "rows.jsonl", rows_with(is_train=values))) == ["train", "test"] * 2


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"split": [0, 0, 0, 1]}, "line 1: column split numbers its parts"),
        ({"partition": ["2", "1", "1", "1"]}, "line 1: column partition numbers its parts"),
        ({"data_split": [0.0, 1.0, 1.0, 1.0]}, "line 1: column data_split numbers its parts"),
        ({"is_test": [True, False, "perhaps", False]}, "line 3: expected true or false in column is_test"),
        ({"split": ["train"] * 4, "is_test": [0, 1, 0, 0]}, "line 2: columns split and is_test say different splits"),
    ],
)
def test_splits_that_are_not_clear_are_refused(tmp_path: Path, columns: dict[str, list[Any]], said: str) -> None:
    path = jsonl(tmp_path / "rows.jsonl", rows_with(**columns))
    assert said in refused(imported, path)
    imported(path, test_share=0.0)  # the columns do not matter then


def test_other_words_of_a_split_are_counted_and_warned_of(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", rows_with(split=["train", "test", "extra", "extra"]))
    dataset, warnings = warned(path, id="test/x-v0")
    assert report(dataset)["splits_not_understood"] == {"split 'extra'": 2}
    assert any("not clear from split 'extra' (2)" in line for line in warnings)
    named = imported(jsonl(tmp_path / "rows.jsonl", rows_with(subset=["math", "code", "math", "code"])))
    assert "splits_not_understood" not in report(named)  # a subset is mostly a subject


def test_where_only_what_is_held_out_is_named_all_else_is_learned_from(tmp_path: Path) -> None:
    flagged = rows_with()
    flagged[2] |= {"is_test": True}
    assert splits(jsonl(tmp_path / "rows.jsonl", flagged)) == ["train", "train", "test", "train"]
    rows = rows_with()
    (tmp_path / "rows.json").write_text(json.dumps({"data": rows[:3], "test": rows[3:]}))
    assert splits(tmp_path / "rows.json") == ["train"] * 3 + ["test"]
    (tmp_path / "set").mkdir()
    jsonl(tmp_path / "set/rows.jsonl", rows[:3])
    jsonl(tmp_path / "set/test.jsonl", rows[3:])
    assert splits(tmp_path / "set") == ["train"] * 3 + ["test"]


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(("column", "values"), [("system", ("", "Be kind.")), ("history", ([], [["h", "a"]]))])
def test_some_rows_have_a_system_message_or_a_history(
    tmp_path: Path, column: str, values: tuple[Any, Any], first: int
) -> None:
    """Then all are conversations: the prompt of the others is its user's only turn."""
    rows = rows_with(**{column: [values[(i + first) % 2] for i in range(4)]})
    table = imported(jsonl(tmp_path / "rows.jsonl", rows)).table
    found = set(zip(table["prompt"].to_pylist(), table["completion"].to_pylist(), strict=True))
    before = "Be kind.\n\nHuman: " if column == "system" else "\n\nHuman: h\n\nAssistant: a\n\nHuman: "
    for i in range(4):
        opening = before if (i + first) % 2 else "\n\nHuman: "
        assert (f"{opening}p{i}\n\nAssistant:", f" r{i}") in found
    chat = rows_with()
    chat[1]["prompt"] = [{"role": "user", "content": "p1"}]
    assert "found a conversation" in refused(imported, jsonl(tmp_path / "mixed.jsonl", chat))


def test_a_file_of_a_split_and_a_column_must_agree(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for name in ("train", "test"):
        jsonl(tmp_path / f"set/{name}.jsonl", [row | {"split": "train"} for row in rows_with()])
    assert "(its file's name) and split say different splits" in refused(imported, tmp_path / "set")


# JSON


PAIR: Rows = [
    {"prompt": "p0", "completion": "r0", "label": True},
    {"prompt": "p1", "completion": "r1", "label": False},
]
COLUMNS = {name: [row[name] for row in PAIR] for name in PAIR[0]}
SHAPES: dict[str, Any] = {
    "a version beside the rows": {"version": 1, "data": PAIR},
    "pages of an interface": {"count": 2, "next": None, "results": PAIR},
    "pandas by table": {"schema": {"fields": []}, "data": PAIR},
    "by columns": COLUMNS,
    "pandas by columns": {name: {str(i): value for i, value in enumerate(values)} for name, values in COLUMNS.items()},
    "pandas by index": {str(i): row for i, row in enumerate(PAIR)},
    "pandas split": {"columns": [*COLUMNS], "index": [0, 1], "data": [[*row.values()] for row in PAIR]},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_inside_json(tmp_path: Path, shape: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(SHAPES[shape]), encoding="utf-8")
    assert labels(imported(path)) == {"r0": True, "r1": False}


def test_what_json_says_of_all_rows_is_a_column_of_each(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    rows = [{name: row[name] for name in ("completion", "label")} for row in PAIR]
    path.write_text(json.dumps({"version": 2, "prompt": "the one", "model": "big", "data": rows}), encoding="utf-8")
    dataset = imported(path)
    assert set(dataset.table["prompt"].to_pylist()) == {"the one"}
    assert set(dataset.table["source"].to_pylist()) == {"big"}
    assert report(dataset)["columns_not_used"] == ["version"]


def test_a_row_of_lists_is_no_table_of_columns(tmp_path: Path) -> None:
    chats = [[{"role": "user", "content": "a"}, {"role": "assistant", "content": text}] for text in ("yes", "no")]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"chosen": chats[0], "rejected": chats[1]}), encoding="utf-8")
    assert labels(imported(path)) == {"yes": True, "no": False}


def test_a_row_that_holds_a_list_of_objects_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(PAIR[0] | {"items": [{"id": 1}, {"id": 2}]}), encoding="utf-8")
    dataset = imported(path)
    assert labels(dataset) == {"r0": True}
    assert report(dataset)["columns_not_used"] == ["items"]


def test_columns_inside_another_are_named(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [{"id": 1, "record": PAIR[0]}])
    assert "columns inside record are called record.NAME" in refused(imported, path)
    asked = tuple(f"{name}=record.{name}" for name in PAIR[0])
    assert labels(imported(path, columns=asked)) == {"r0": True}


# Scores and labels


def scored(*scores: Any, name: str = "score", **more: list[Any]) -> Rows:
    rows: Rows = [{"prompt": f"p{i}", "completion": f"r{i}", name: score} for i, score in enumerate(scores)]
    return [row | {column: values[i] for column, values in more.items()} for i, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("column", "values", "score", "said"),
    [
        ("higher_is_better", [False, False], None, "less of score is better: write score=-score"),
        ("lower_is_better", ["yes", "yes"], None, "less of score is better: write score=-score"),
        ("higher_is_better", [True, True], "-score", "more of score is better: write score=+score"),
        ("max_score", [5, 10], None, "line 2: column max_score is 10, and 5 before: divide the scores by it"),
    ],
)
def test_columns_that_say_how_to_read_scores(
    tmp_path: Path, column: str, values: list[Any], score: str | None, said: str
) -> None:
    path = jsonl(tmp_path / "rows.jsonl", scored(4, 1, **{column: values}))
    assert said in refused(imported, path, score=score)


SEVERAL: dict[str, tuple[dict[str, Any], str | None]] = {
    "in objects": ({"completions": [{"response": "a", "score": 4}, {"response": "b", "score": 1}]}, None),
    "in a list": ({"responses": ["a", "b"], "scores": [4, 1]}, None),
    "a number a turn": ({"conversation": turns("p", "a"), "openai_moderation": [], "rating": [0, 4]}, "rating"),
}


@pytest.mark.parametrize("form", SEVERAL)
@pytest.mark.parametrize(
    ("column", "values", "problem"),
    [
        ("lower_is_better", [True, True], "says that less of"),
        ("max_score", [5, 10], "column max_score is 10, and 5 before"),
    ],
)
def test_columns_that_say_how_to_read_several_scores_of_a_row(
    tmp_path: Path, form: str, column: str, values: list[Any], problem: str
) -> None:
    row, score = SEVERAL[form]
    asked = {} if "conversation" in row else {"prompt": "p"}
    path = jsonl(tmp_path / "rows.jsonl", [{**asked, **row, column: value} for value in values])
    assert problem in refused(imported, path, score=score)


def test_scores_of_which_less_is_better(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", scored(4, 1, higher_is_better=[False, False]))
    dataset = imported(path, score="-score")
    assert labels(dataset) == {"r0": False, "r1": True}
    assert "columns_not_used" not in report(dataset)
    same = jsonl(tmp_path / "rows.jsonl", scored(4, 1, higher_is_better=[True, True], max_score=[5, 5]))
    assert labels(imported(same)) == {"r0": True, "r1": False}


@pytest.mark.parametrize(
    ("name", "asked", "said"),
    [
        ("toxic", {"score": "toxic"}, "score toxic: if less of it is better"),
        ("toxicity", {"columns": ("score=toxicity",)}, "score toxicity: if less of it is better"),
        ("is_harmful", {"columns": ("label=is_harmful",)}, "true seems to mean reject: add accept"),
        ("hallucinated", {"columns": ("label=hallucinated",)}, "as in accept false"),
    ],
)
def test_columns_whose_names_say_reject(tmp_path: Path, name: str, asked: dict[str, Any], said: str) -> None:
    path = jsonl(tmp_path / "rows.jsonl", scored(True, False, name=name))
    assert said in refused(imported, path, **asked)
    if "label=" in str(asked):
        assert labels(imported(path, accept=("false",), **asked)) == {"r0": False, "r1": True}


def test_one_number_below_all_others_may_mean_unknown(tmp_path: Path) -> None:
    for scores, said in (((5, 4, -1, -1), "2 scores are -1 and no other"), ((5, -999), "1 scores are -999 and no")):
        warnings = warned(jsonl(tmp_path / "rows.jsonl", scored(*scores)), id="test/x-v0", overwrite=True)[1]
        assert any(said in line for line in warnings), warnings
    for scores in ((1, 0, -1), (5, -1, -2), (0.5, -0.25)):
        warnings = warned(jsonl(tmp_path / "rows.jsonl", scored(*scores)), id="test/x-v0", overwrite=True)[1]
        assert not any("no other is below 0" in line for line in warnings), warnings


# Rows and turns that are not to be used


@pytest.mark.parametrize("name", ["deleted", "is_deleted", "excluded", "spam"])
def test_rows_that_are_marked_as_gone_are_dropped_and_counted(tmp_path: Path, name: str) -> None:
    dataset = imported(jsonl(tmp_path / "rows.jsonl", rows_with(**{name: [True, False, "yes", None]})))
    assert labels(dataset) == {"r1": False, "r3": False}
    assert report(dataset)["dropped"] == {f"column {name} says that the row is not to be used": 2}


def chat(*turns: tuple[str, str], **last: Any) -> list[dict[str, Any]]:
    said = [{"role": role, "content": text} for role, text in turns]
    return [*said[:-1], said[-1] | last]


def test_turns_of_weight_0_are_dropped() -> None:
    turns = chat(("user", "a"), ("assistant", "b"), weight=0)
    reason = "messages ends with a turn of weight 0, which is not to be learned"
    assert responses({"messages": turns, "label": True})[1] == [(reason, 1)]
    assert responses({"messages": chat(("user", "a"), ("assistant", "b"), weight=1), "label": True})[1][0][1] == "b"
    both = [*turns, *chat(("user", "c"), ("assistant", "d"), feedback="up")]
    assert [found[-1] for found in responses({"messages": both})[1]] == [1, 1.0]


def test_a_system_message_within_a_conversation_is_never_glued_to_a_turn(tmp_path: Path) -> None:
    turns = chat(("user", "a"), ("system", "be brief"), ("assistant", "b"))
    rows = [{"messages": turns, "label": True}, {"messages": chat(("user", "a"), ("assistant", "c")), "label": False}]
    dataset = imported(jsonl(tmp_path / "rows.jsonl", rows))
    assert labels(dataset) == {"c": False}
    (reason,) = report(dataset)["dropped"]
    assert "a system message is not the first turn" in reason
