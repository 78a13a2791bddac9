"""Columns and keys of other names: what they are taken for, when they are refused, and when they are warned of."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers.imports import labels, refused, report, responses, warned
from helpers.texts import Rows, jsonl, said

from pmpo_offline.data.exchange.forms import FORMS

ONE = {"prompt": "q", "completion": "a"}
GOOD, BAD = ("q", "a", 1), ("q", "b", -1)
imported = partial(warned, id="test/x-v0", overwrite=True)


def read(*rows: dict[str, Any], **asked: Any) -> list[Any]:
    return responses(*rows, **asked)[1]


def refusal(*rows: dict[str, Any], **asked: Any) -> str:
    return refused(responses, *rows, **asked)


def translations(name: str, *texts: str) -> Rows:
    return [{"instruction": "Translate:", name: text, "output": f"r{i}", "label": True} for i, text in enumerate(texts)]


@pytest.mark.parametrize("name", ["inputs", "text", "source_text", "userInput", "code", "email", "context_prompt"])
def test_a_part_of_the_prompt_that_no_form_reads_is_refused_by_name(name: str) -> None:
    rows = translations(name, "cat", "dog")
    assert (
        f"line 2: column {name} differs between rows of one prompt and is not used: add --columns context={name}"
        in (refusal(*rows))
    )
    assert [each[0] for each in read(*rows, asked=f"context={name}")] == ["Translate:\ncat", "Translate:\ndog"]
    other = [row | {"instruction": f"Translate into {i}"} for i, row in enumerate(rows)]
    assert len(read(*other)) == 2  # the prompts tell the rows apart
    whole = [row | {name: f"Translate:\n{row['output']}"} for row in rows]
    assert len(read(*whole)) == 2  # a text that holds the answer is no part of the prompt


def test_texts_in_which_rows_of_one_prompt_differ_are_warned_of(home: Path, tmp_path: Path) -> None:
    dataset, lines = imported(jsonl(tmp_path / "rows.jsonl", translations("topic", "a black cat", "a dog")))
    assert report(dataset)["columns_that_differ_within_a_prompt"] == ["topic"]
    assert any(line.startswith("rows of one prompt differ in topic, which is not used") for line in lines)
    for name in ("comment", "created_at", "user_feedback_text", "model_name"):  # about the answer or the row
        lines = imported(jsonl(tmp_path / "b.jsonl", translations(name, "so so", "very good")))[1]
        assert not any("rows of one prompt differ" in line for line in lines)


FEEDBACK: dict[str, tuple[str, list[Any], list[float | None]]] = {
    "like and dislike": ("rating", ["like", "dislike", None], [1, -1, None]),
    "emoji": ("Rating", ["👍", "👎"], [1, -1]),
    "words": ("score", ["good", "bad", "good"], [1, -1, 1]),
    "a flag": ("is_correct", [True, False], [1, -1]),
    "numbers of a yes or no": ("helpful", ["1", "0", ""], [1, -1, None]),
    "nothing first": ("user_feedback", [None, "up", "down"], [None, 1, -1]),
    "an object": ("userFeedback", [{"rating": "thumbsUp"}, {"rating": "thumbsDown"}], [1, -1]),
    "chosen and rejected": ("preference", ["chosen", "rejected"], [1, -1]),
    "chosen or not": ("chosen", [True, False], [1, -1]),
    "an empty object": ("feedback", ["up", {}, []], [1, None, None]),
    "true is a score": ("rating", [True, False], [1, 0]),
    "true as a word too": ("reward", ["True", "false"], [1, 0]),
}


@pytest.mark.parametrize("change", [str.upper, str.title, lambda name: name.replace("_", " ") + " "])
def test_columns_of_every_form_are_known_in_any_case(change: Callable[[str], str]) -> None:
    for name in set(FORMS) - {"librechat"}:  # which is JSON as its front end writes it
        rows = list(map(dict, FORMS[name].examples))
        assert read(*({change(key): value for key, value in row.items()} for row in rows)) == read(*rows), name
    assert read(ONE | {"Quality": 3}, score="Quality") == [("q", "a", 3)]
    assert read(ONE | {"Rating": 3}, score="Rating") == [("q", "a", 3)]


def test_conversations_without_feedback_may_have_columns_about_the_row() -> None:
    row = {"messages": said("q", "a"), "created_at": "2024-01-01", "user_id": 3, "metadata": {}, "deleted": False}
    assert read(row) == [(["q"], "a", None)]
    assert read(row | {"deleted": True}) == [("column deleted says that the row is not to be used", 1)]
    assert "not recognised" in refusal(row | {"opinion": "fine"})


@pytest.mark.parametrize("case", FEEDBACK)
def test_the_one_column_for_feedback_is_a_label_if_it_holds_words(case: str) -> None:
    name, values, right = FEEDBACK[case]
    assert [each[2] for each in read(*({**ONE, name: value} for value in values))] == right


def test_columns_for_feedback_that_hold_other_things_are_refused(home: Path, tmp_path: Path) -> None:
    for name, value in (("user_rating", 1), ("grade", "A"), ("user_feedback", "Thanks a lot"), ("judge_score", 0.5)):
        assert "not recognised by the columns" in refusal(ONE | {name: value})
    assert "not recognised" in refusal(ONE | {"helpful": 1, "is_correct": 0})  # which one?
    path = jsonl(tmp_path / "rows.jsonl", [ONE | {"is_correct": value} for value in (1, 0.5)])
    assert "in column is_correct, found 0.5" in refused(imported, path)
    rows = [ONE | {"rating": None}, ONE | {"rating": "like"}]
    assert "found 'like': add --columns label=rating if it holds such words" in refusal(*rows)
    assert read(ONE | {"rating": 4, "verdict": "good"}) == [("q", "a", 4)]


def test_of_several_labels_the_first_that_says_something_counts() -> None:
    assert read(ONE | {"label": None, "thumbs": "up"}) == [GOOD]
    assert read(ONE | {"label": "", "feedback": {"rating": None}, "vote": "down"}) == [("q", "a", -1)]
    assert read(ONE | {"label": None, "thumbs": None}) == [("q", "a", None)]


def test_a_conversation_that_ends_with_the_user_is_the_prompt_of_what_is_beside_it() -> None:
    for name in ("messages", "conversation", "conversations"):
        assert read({name: said("q"), "response": "a", "label": True}) == [(["q"], "a", 1)]
        assert read({name: said("x", "y", "q"), "output": "a", "score": 3}) == [(["x", "y", "q"], "a", 3)]
    with_answer = {"messages": said("q", "a"), "response": "a", "label": True}
    assert read({"messages": said("q"), "response": "a", "label": True}, with_answer)[1] == (
        "prompt has an assistant's turn that answers no other turn",
        1,
    )
    ranked = [{"rank": rank, "completion": said("", text)[1:]} for rank, text in enumerate("ab")]
    assert read({"context": said("q"), "completions": ranked}) == [(["q"], "a", 0), (["q"], "b", -1)]  # NeMo-RL
    scored = [{"score": i, "completion": {"role": "model", "parts": [{"text": text}]}} for i, text in enumerate("ba")]
    vertex = {"contents": [{"role": "user", "parts": [{"text": "q"}]}], "completions": scored}
    assert read(vertex) == [(["q"], "b", 0), (["q"], "a", 1)]


def test_conversations_with_a_score() -> None:
    rows = [{"messages": said("q", text), "rating": rating} for text, rating in (("a", 5), ("b", "2"), ("c", None))]
    assert responses(*rows) == ("conversations with a score", [(["q"], "a", 5), (["q"], "b", 2), (["q"], "c", None)])
    rated = [said("q")[0], said("", "a")[1] | {"feedback": "up"}]
    assert "rating and feedback on turns both say" in refusal({"messages": rated, "rating": 4})


KEYS = [("from", "content"), ("role", "text"), ("sender", "text"), ("speaker", "message"), ("role", "value")]


@pytest.mark.parametrize("keys", KEYS)
def test_turns_have_keys_of_several_names(keys: tuple[str, str]) -> None:
    turns = [dict(zip(keys, turn.values(), strict=True)) for turn in said("q", "a")]
    assert read({"messages": turns, "label": 1}) == [(["q"], "a", 1)]
    turns[1]["score"] = -1  # chat-ui of Hugging Face
    assert read({"messages": turns}) == [(["q"], "a", -1)]


def test_roles_are_known_in_any_case_and_with_blanks() -> None:
    turns = [{"role": role, "content": text} for role, text in ((" User", "q"), ("CHATBOT ", "a"))]
    assert read({"messages": turns, "label": 1}) == [(["q"], "a", 1)]


def test_turns_as_pairs() -> None:
    for chat in ([["q", "a"]], [["user", "q"], ["assistant", "a"]], [[None, "hello"], ["q", "a"]]):
        found = read({"conversation": chat, "label": 1})
        assert [each[1:] for each in found] == [("a", 1)]
        assert found[0][0][-1] == "q"


def test_items_of_a_list_are_read_as_one_completion_is() -> None:
    asked = "\n\nHuman: hi\n\nAssistant:"
    ranked = [{"answer": " a\n\nHuman: x", "rank": 1}, {"answer": " b", "rank": 2}]
    assert read({"prompt": asked, "answers": ranked}) == [
        ("response goes on with a turn of the user", 1),
        (asked, " b", -2),
    ]
    turns = [said("", text)[1] for text in "ab"]
    assert read({"prompt": "q", "responses": turns, "scores": [1, 0]}) == [(["q"], "a", 1), (["q"], "b", 0)]


def test_a_completion_that_holds_its_prompt_as_a_turn_is_dropped() -> None:
    for whole in ("\n\nHuman: q?\n\nAssistant: a", "<|im_start|>user\nq?<|im_end|>\n<|im_start|>assistant\na"):
        assert read(ONE | {"prompt": "q?", "completion": whole, "label": 1}) == [
            ("completion repeats the prompt as a turn of the user", 1)
        ]
        asked = {"prompt": "Write a dialogue.", "completion": whole, "label": 1}
        assert read(asked) == [("Write a dialogue.", whole, 1)]


def test_all_responses_of_a_row_that_is_gone_are_counted() -> None:
    row = {"prompt": "q", "completions": [{"response": text, "score": 1} for text in "abc"], "deleted": True}
    assert read(row) == [("column deleted says that the row is not to be used", 3)]
    assert read({"prompt": "q", "chosen": "a", "rejected": "b", "spam": 1})[0][1] == 2
    assert read(ONE | {"label": "?", "excluded": "yes"})[0][1] == 1


@pytest.mark.parametrize(
    ("sides", "verdict", "words"),
    [
        (("output_1", "output_2"), "preference", (1, 2.0, "1.5")),  # AlpacaFarm
        (("response1", "response2"), "preferred", ("response1", "response2", "tie")),
        (("answer_a", "answer_b"), "winner", ("A", "answer_b", None)),
        (("response_a", "response_b"), "chosen", ("first", "b", "equal")),
    ],
)
def test_two_responses_by_letters_and_numbers(sides: tuple[str, str], verdict: str, words: tuple[Any, ...]) -> None:
    row = {"prompt": "q", **dict(zip(sides, "ab", strict=True))}
    scores = [[each[2] for each in read(row | {verdict: word})] for word in words]
    assert scores == [[1, -1], [-1, 1], [None, None]]
    assert f"in column {verdict}, found 0" in refusal(row | {verdict: 0})


def test_a_verdict_is_about_the_turn_that_a_column_names() -> None:
    sides = {"conversation_a": said("q", "a", "r", "c"), "conversation_b": said("q", "b", "r", "d")}
    row = {**sides, "winner": "model_a"}  # MT-bench
    assert read(row | {"turn": 1}) == [(["q"], "a", 1), (["q"], "b", -1)]
    for turn in (2, "2", None, 7):
        assert read(row | {"turn": turn}) == [(["q", "a", "r"], "c", 1), (["q", "b", "r"], "d", -1)]


def test_flags_of_trees_may_be_texts() -> None:
    first = {"message_id": "1", "parent_id": None, "role": "prompter", "text": "q", "deleted": "False"}
    reply = {"message_id": "2", "parent_id": "1", "role": "assistant", "text": "a", "deleted": "False", "rank": "0.0"}
    assert read(first, reply) == [(["q"], "a", 1)]
    assert read(first, reply | {"review_result": "False"}) == [(["q"], "a", -1)]
    assert read(first, reply | {"deleted": "True"}) == [("the message was deleted, or one that it follows", 1)]


SAID = {"message_id": "1", "parent_id": None, "role": "assistant", "text": "a"}
STEP = {"completions": [{"text": "a", "rating": 1}], "chosen_completion": 0}
MALFORMED: dict[str, tuple[dict[str, Any], str]] = {
    "steps": ({"steps": 3}, "expected a list in column steps, found 3"),
    "a step": ({"steps": [None]}, "expected an object in column steps, found None"),
    "a candidate": ({"steps": [STEP | {"completions": ["a"]}]}, "expected an object in column completions, found 'a'"),
    "a choice": ({"steps": [STEP | {"chosen_completion": 1}]}, "expected the number of a completion"),
    "an id": (SAID | {"message_id": [1]}, "expected a text or a number as message_id, found [1]"),
    "a parent": (SAID | {"parent_id": {}}, "expected a text or a number as parent_id, found {}"),
    "replies": (SAID | {"replies": ["b"]}, "expected an object in column replies, found 'b'"),
    "scores": ({"prompt": "q", "completions": ["a"], "labels": [1]}, "there is no column quality"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_objects_inside_rows_that_are_malformed_are_refused(case: str) -> None:
    row, problem = MALFORMED[case]
    given = {"question": {"problem": "q"}, "label": row} if "steps" in row else row
    assert problem in refusal(given, score="quality" if case == "scores" else None)


@pytest.mark.parametrize(
    ("suffix", "numbers", "right"),
    [
        ("jsonl", ["0", "1"], [True, False]),
        ("jsonl", [0.0, 1.0], [True, False]),
        ("jsonl", ["reject", "0"], [False, True]),
        ("csv", ["0.0", "1.0"], [True, False]),
    ],
)
def test_numbers_of_classes_may_be_texts(
    home: Path, tmp_path: Path, suffix: str, numbers: list[Any], right: list[bool]
) -> None:
    features = {"features": {"label": {"_type": "ClassLabel", "names": ["accept", "reject"]}}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(features))
    rows = [{"prompt": "q", "completion": text, "label": number} for text, number in zip("ab", numbers, strict=True)]
    path = tmp_path / f"rows.{suffix}"
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)] if suffix == "csv" else map(json.dumps, rows)
    path.write_text("\n".join(lines))
    assert labels(imported(path)[0]) == dict(zip("ab", right, strict=True))


def test_a_card_names_the_splits_of_its_files(home: Path, tmp_path: Path) -> None:
    for text in ("one", "two"):
        jsonl(tmp_path / f"{text}.jsonl", [ONE | {"completion": text, "label": True}])
    parts = "".join(
        f"  - split: {split}\n    path: {path}\n" for split, path in (("train", "on*"), ("test", "[two.jsonl]"))
    )
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n- config_name: x\n  data_files:\n{parts}---\n")
    dataset, _ = imported(tmp_path)
    splits = dict(zip(dataset.table["completion"].to_pylist(), dataset.table["split"].to_pylist(), strict=True))
    assert splits == {"one": "train", "two": "test"}
    assert "README.md" in dataset.metadata.provenance.hashes


def test_ranks_have_to_be_named_with_score(home: Path, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [ONE | {"my_rank": 1}, ONE | {"completion": "b", "my_rank": "−2"}])
    assert "ranks count from the best down" in refused(imported, path, columns=("score=my_rank",))
    assert labels(imported(path, score="my_rank")[0]) == {"a": False, "b": True}


def test_values_to_accept_are_compared_as_numbers(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("prompt,completion,stars\nq,a,5\nq,b,4.0\nq,c,3.0\n")
    assert labels(imported(path, score="stars", accept=("4", "5.0"))[0]) == {"a": True, "b": True, "c": False}
