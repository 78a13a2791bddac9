"""Turns as APIs, front ends and trainers write them, and what is beside their texts: read, dropped or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.imports import imported, refused, responses
from helpers.texts import said

from pmpo_offline.data.exchange.forms import Reading, Row
from pmpo_offline.data.exchange.forms.form import form_of

GOOD, BAD = (["q"], "a", 1), (["q"], "b", -1)


def read(*rows: dict[str, Any], **asked: Any) -> list[Any]:
    return responses(*rows, **asked)[1]


def refusal(*rows: dict[str, Any], **asked: Any) -> str:
    return refused(responses, *rows, **asked)


def gemini(*texts: str) -> list[dict[str, Any]]:
    """Turns as Gemini's API has them."""
    return [{"role": ("user", "model")[i % 2], "parts": [{"text": text}]} for i, text in enumerate(texts)]


@pytest.mark.parametrize("write", [list, json.dumps, repr])
def test_parts_of_gemini_are_texts(write: Callable[[Any], Any]) -> None:
    assert read({"contents": write(gemini("q", "a")), "label": 1}) == [GOOD]
    assert read({"prompt": write(gemini("q")), "completion": "a", "label": 1}) == [GOOD]
    for part, what in (
        ({"functionCall": {"name": "f"}}, "functionCall"),
        ({"inlineData": {}}, "inlineData"),
        ({"text": "hm", "thought": True}, "thought"),
    ):
        turns = gemini("q", "a")
        turns[1]["parts"].insert(0, part)
        assert read({"contents": write(turns), "label": 1}) == [
            (f"contents has {what}, which a text has no place for", 1)
        ]


@pytest.mark.parametrize("write", [dict, json.dumps, repr])
def test_requests_of_an_api_hold_the_turns(write: Callable[[Any], Any]) -> None:
    assert read({"messages": write({"messages": said("q", "a")}), "label": 1}) == [GOOD]
    assert read({"prompt": write({"messages": said("q")}), "completion": "a", "label": 1}) == [GOOD]


def test_a_request_with_more_than_turns_is_none() -> None:
    request = {"messages": said("q"), "tools": [{"name": "f"}]}
    assert "in prompt, found {'messages'" in refusal({"prompt": request, "completion": "a", "label": 1})


def test_preferences_of_openai() -> None:
    row = {
        "input": {"messages": said("q"), "tools": [], "parallel_tool_calls": True},
        "preferred_output": said("q", "a")[1:],
        "non_preferred_output": said("q", "b")[1:],
    }
    assert read(row) == [GOOD, BAD]
    assert read(row | {"input": json.dumps(row["input"])}) == [GOOD, BAD]
    tools = {"messages": said("q"), "tools": [{"type": "function"}]}
    assert read(row | {"input": tools}) == [("input has tools, which a text has no place for", 2)]
    call = [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]
    assert read(row | {"preferred_output": call})[0] == (
        "chosen has tool_calls, which a text has no place for",
        1,
    )
    assert "expected an object with messages in column input, found 'q'" in refusal(row | {"input": "q"})


def test_pairs_of_trainers() -> None:
    answers = {"chosen": said("q", "a")[1], "rejected": said("q", "b")[1]}
    assert read({"messages": said("q"), **answers}) == [GOOD, BAD]  # axolotl
    assert read({"messages": said("q", "a"), "rejected_response": "b"}) == [GOOD, BAD]  # ms-swift
    # A conversation that ends with the chosen answer, or with one that has no label, is the pair's own.
    whole = {"chosen": said("q", "a"), "rejected": said("q", "b")}
    for last in ("a", "c"):
        assert read(whole | {"messages": said("q", last)}) == [GOOD, BAD]
    assert "column messages says something" in refusal(whole | {"messages": said("other", "a")})


def test_pairs_of_capybara() -> None:
    talk = [{"input": "q", "output": "old"}, {"input": "r", "output": "a"}]
    both = {"prompt": "r", "chosen": said("q", "old", "r", "a"), "rejected": said("q", "old", "r", "b")}
    assert read(both | {"conversation": talk}) == [(["q", "old", "r"], "a", 1), (["q", "old", "r"], "b", -1)]
    assert read({"conversation": talk}) == [(["q"], "old", None), (["q", "old", "r"], "a", None)]


def test_two_names_of_one_side_must_agree() -> None:
    pair = {"prompt": "q", "chosen": "a", "rejected": "b"}
    same = pair | {"chosen_response": "a", "rejected_response": "b"}
    assert read(same) == read(pair)
    assert "column chosen_response says something" in refusal(same | {"chosen_response": "c"})


def test_writers_of_a_pair_are_its_sources() -> None:
    for names in (("chosen_model", "rejected_model"), ("chosen-model", "rejected-model")):
        row = Row({"prompt": "q", "chosen": "a", "rejected": "b", **dict(zip(names, "xy", strict=True))}, "here")
        reading = Reading()
        assert [each.source for each in form_of(row, None).responses(row, reading)] == ["x", "y"]
        assert reading.unread - reading.used == set()


@pytest.mark.parametrize("unnamed", [None, "", 3, {"name": "m"}, "\ud800"])
@pytest.mark.parametrize(
    ("row", "model"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "chosen_model"),
        ({"prompt": "q", "response_a": "a", "response_b": "b", "winner": "a"}, "model_a"),
    ],
)
@pytest.mark.usefixtures("home")
def test_a_response_without_a_writer_does_not_get_the_other_ones(
    tmp_path: Path, row: dict[str, Any], model: str, unnamed: Any
) -> None:
    other = model.replace("chosen", "rejected").replace("_a", "_b")
    sources = {}
    for named, blank in ((model, other), (other, model)):
        path = tmp_path / "rows.jsonl"
        path.write_text(json.dumps({**row, named: "m", blank: unnamed}))
        table = imported(path, id="test/x-v0", overwrite=True).table
        sources |= {named: dict(zip(table["completion"].to_pylist(), table["source"].to_pylist(), strict=True))}
    assert sources == {model: {"a": "m", "b": "rows"}, other: {"a": "rows", "b": "m"}}


@pytest.mark.parametrize(
    "key", ["toolCalls", "toolInvocations", "attachments", "reasoning_details", "Tool-Calls", "functionCall"]
)
def test_keys_of_turns_are_known_however_they_are_written(key: str) -> None:
    turns = said("q", "a")
    turns[1][key] = [{"x": 1}]
    assert read({"messages": turns, "label": 1}) == [(f"messages has {key}, which a text has no place for", 1)]
    turns[1][key] = []
    assert read({"messages": turns, "label": 1}) == [GOOD]


def test_feedback_on_a_turn_is_read_and_other_keys_are_listed() -> None:
    turns = said("q", "a")
    turns[1] |= {"annotation": {"rating": -1, "tags": []}, "toxicity": 0.9}  # Open WebUI
    row, reading = Row({"messages": turns}, "here"), Reading()
    assert [each.score for each in form_of(row, None).responses(row, reading)] == [-1]
    assert reading.unread - reading.used == {"messages.toxicity"}
    assert "annotation of the last turn and the row's own label contradict" in refusal({"messages": turns, "label": 1})
    assert read({"messages": turns, "label": 0}) == [(["q"], "a", -1)]


def test_a_history_that_ends_with_the_prompt_holds_it_once() -> None:
    right = [(["h", "i", "q"], "a", 1)]
    for history in (said("h", "i"), said("h", "i", "q")):
        assert read({"history": history, "prompt": "q", "completion": "a", "label": 1}) == right
    assert read({"history": said("h", "i"), "prompt": said("h", "i", "q"), "completion": "a", "label": 1}) == right


@pytest.mark.parametrize("name", ["knowledge", "paragraph", "choices", "options"])
def test_more_columns_go_on_from_the_question(name: str) -> None:
    row = {"question": "Which?", name: "A) 1 B) 2", "response": "A", "label": 1}
    assert read(row) == [("Which?\nA) 1 B) 2", "A", 1)]
    assert f"expected text in {name}, found ['1', '2']" in refusal(row | {name: ["1", "2"]})


def test_instructions_beside_an_input_are_a_system_message() -> None:
    assert read({"instructions": "s", "input": "q", "output": "a", "label": 1}) == [(["s", "q"], "a", 1)]


def test_lists_of_texts_in_text_cells_are_refused() -> None:
    for row in (
        {"prompt": '["q"]', "completion": '["a"]', "label": 1},
        {"prompt": "['q']", "response_a": "['a']", "response_b": "['b']", "winner": "model_a"},
        {"prompt": '["q"]', "chosen": '["a"]', "rejected": '["b"]'},
    ):
        assert "are lists of texts that are written as text" in refusal(row)
    listed = {"prompt": "Three primes as JSON?", "completion": '["2", "3", "5"]', "label": 1}
    assert read(listed) == [("Three primes as JSON?", '["2", "3", "5"]', 1)]


def test_an_implied_prompt_ends_with_the_mark_of_the_answer() -> None:
    pair = {"chosen": "[INST] Name a prime. [/INST]Seven", "rejected": "[INST] Name a prime. [/INST]Six"}
    assert read(pair) == [("[INST] Name a prime. [/INST]", "Seven", 1), ("[INST] Name a prime. [/INST]", "Six", -1)]


def test_a_verdict_is_no_answer() -> None:
    row = {"prompt": "q", "response": "a", "label": "GOOD", "answer": "reject"}  # Prodigy
    assert "column answer says reject, which is a verdict and no text: add --columns label=answer" in refusal(row)
    rows = [row | {"answer": verdict} for verdict in ("accept", "reject", "ignore")]
    assert [each[2] for each in read(*rows, asked="label=answer")] == [1, -1, None]


def test_a_path_that_a_row_lacks_is_null() -> None:
    asked = "prompt=inputs.q,completion=outputs.a,label=stats.user.avg"
    rows = [
        {"inputs": {"q": "q"}, "outputs": {"a": "a"}, "stats": stats} for stats in ({"user": {"avg": 1.0}}, {}, None)
    ]
    assert [each[2] for each in read(*rows, asked=asked)] == [1, None, None]


@pytest.mark.parametrize("word", ["N/A", "na", "None", "null", "\\N", " "])
def test_words_for_nothing_leave_a_row_unlabelled(word: str) -> None:
    assert [each[2] for each in read(*({"prompt": "q", "completion": "a", "score": s} for s in ("4", word)))] == [
        4,
        None,
    ]
    rows = ({"prompt": "q", "completion": "a", "label": label} for label in ("✅", "✗", word.strip()))
    assert [each[2] for each in read(*rows)] == [1, -1, None]


@pytest.mark.parametrize("keys", [("user", "assistant"), ("question", "answer"), ("prompt", "response")])
@pytest.mark.parametrize("write", [list, json.dumps])
def test_questions_and_answers_in_one_object_are_turns(keys: tuple[str, str], write: Callable[[Any], Any]) -> None:
    talk = [dict(zip(keys, ("h", "i"), strict=True))]
    row = {"history": write(talk), "prompt": "q", "completion": "a", "label": 1}
    assert read(row) == [(["h", "i", "q"], "a", 1)]
    more = [dict(zip((*keys, "when"), ("h", "i", 1), strict=True))]
    assert "expected a message with role and content in history" in refusal(row | {"history": more})


def test_a_thumb_that_nobody_gave_is_no_opinion() -> None:
    row = {"prompt": "q", "completion": "a"}
    for up, down in (("liked", "disliked"), ("thumbs_up", "thumbs_down"), ("accepted", "rejected")):
        rows = [row | {up: first, down: second} for first, second in ((1, 0), (0, 1), (0, 0))]
        assert [each[2] for each in read(*rows)] == [1, -1, None]
        assert f"columns {up} and {down} are both set" in refusal(row | {up: 1, down: 1})
    assert read(row | {"label": False, "thumbs_down": False}) == [("q", "a", -1)]


@pytest.mark.parametrize("text", ["\u200b", "\ufeff \u200d", "\u2060", float("nan")])
def test_texts_without_a_visible_letter_are_dropped(text: Any) -> None:
    (found,) = read({"prompt": "q", "completion": text, "label": 1})
    assert found in (("completion is empty", 1), ("completion is null", 1))


def test_labels_are_numbers_of_any_kind() -> None:
    from decimal import Decimal

    rows = [{"prompt": "q", "completion": "a", "label": label} for label in (Decimal("1.00"), Decimal("0.0"), 1.0)]
    assert [each[2] for each in read(*rows)] == [1, -1, 1]


def test_items_of_openais_responses_are_turns() -> None:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "q"}]}
    reply = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]}
    assert read({"input": [item], "output": [reply], "label": 1}) == [GOOD]
    assert "found {'type': 'reasoning'" in refusal({"input": [item], "output": [{"type": "reasoning"}], "label": 1})


def test_paths_lead_through_lists_and_take_what_is_beside_the_text() -> None:
    request = {"messages": said("q"), "tools": [{"name": "f"}]}
    reply = [{"message": said("q", "a")[1], "finish_reason": "stop"}]
    row = {"request": request, "choices": reply, "scores": [{"name": "user", "value": 0}]}
    asked = "prompt=request.messages,completion=choices.0.message,label=scores.0.value"
    assert read(row, asked=asked) == [("column tools is used, which a text has no place for", 1)]
    assert read(row | {"request": {"messages": said("q")}}, asked=asked) == [(["q"], "a", -1)]
    first = row | {"request": {"messages": said("q")}}
    assert [each[2] for each in read(first, first | {"scores": []}, asked=asked)] == [-1, None]
    assert "columns inside scores are called scores.0.NAME" in refusal({"scores": [{"value": 1}]})


def test_a_label_of_another_turn_is_no_label_of_the_last() -> None:
    turns = said("q", "a", "r", "b")
    turns[1]["annotation"] = {"rating": 1}
    row = {"snapshot": {"chat": {"messages": turns}}, "data": {"rating": 1}}  # Open WebUI's export of feedback
    both = "messages=snapshot.chat.messages,label=data.rating"
    assert "annotation is on an earlier turn, and the row's own label on the last one" in refusal(row, asked=both)
    assert [each[2] for each in read(row, asked="messages=snapshot.chat.messages")] == [1, None]


@pytest.mark.parametrize("nothing", ["<noinput>", "Noinput", "nan", "N/A", "null", " "])
def test_words_for_nothing_are_no_part_of_a_prompt(nothing: str) -> None:
    row = {"instruction": "q", "input": nothing, "system": nothing, "output": "a", "label": 1}
    assert read(row) == [("q", "a", 1)]
    assert read({"messages": nothing, "label": 1}) == [("messages is null", 1)]
    assert read({"prompt": "Is it null?", "completion": "null", "label": 1}) == [("Is it null?", "null", 1)]


def message(name: str, parent: str | None, role: str, text: str, **more: Any) -> dict[str, Any]:
    return {"message_id": name, "parent_id": parent, "role": role, "text": text, **more}


def test_what_follows_a_deleted_message_is_deleted_too() -> None:
    rows = [
        message("a", None, "prompter", "q"),
        message("b", "a", "assistant", "a", rank=0, deleted=True),
        message("c", "b", "prompter", "r"),
        message("d", "c", "assistant", "b", rank=0),
        message("e", "a", "assistant", "c", rank=1),
    ]
    gone = ("the message was deleted, or one that it follows", 1)
    assert read(*rows) == [gone, gone, (["q"], "c", -1)]


def test_two_messages_of_one_id_are_refused() -> None:
    rows = [
        message("a", None, "prompter", "q"),
        message("b", "a", "assistant", "a"),
        message("b", "a", "assistant", "b"),
    ]
    assert "message_id 'b' is that of another message too" in refusal(*rows)
    assert read(*rows[:2], rows[1]) == [(["q"], "a", None)] * 2


def test_messages_of_front_ends_may_have_files_and_be_unfinished() -> None:
    asked = {"messageId": "a", "parentMessageId": None, "isCreatedByUser": True, "text": "q"}
    reply = {"messageId": "b", "parentMessageId": "a", "isCreatedByUser": False, "unfinished": True}
    reply |= {"text": "", "content": [{"type": "text", "text": {"value": "a"}}]}
    row = {"conversationId": "c", "messages": [asked, reply]}
    assert read(row) == [(["q"], "a", None)]
    files = row | {"messages": [asked | {"files": [{"file_id": "1"}]}, reply]}
    assert read(files) == [("messages has files, which a text has no place for", 1)]
    given = Row(row, "here")
    form, reading = form_of(given, None), Reading()
    assert [each.is_cut_off for each in form.responses(next(form.join([given])), reading)] == [True]


@pytest.mark.parametrize("content", [[], [{"type": "text", "text": None}]])
def test_contents_without_a_text_are_dropped(content: Any) -> None:
    turns = said("q", "a")
    turns[1]["content"] = content
    ((reason, count),) = read({"messages": turns, "label": 1})
    assert (reason in ("messages's content is empty", "messages's content is null"), count) == (True, 1)


@pytest.mark.parametrize("name", ["problem", "post", "text", "user_prompt", "questionText"])
def test_a_pair_beside_a_text_that_may_be_its_prompt_is_refused(name: str) -> None:
    pair = {name: "Which letter?", "chosen": "I think a", "rejected": "I think b"}
    assert f"column {name} may be the prompt of chosen and rejected: add --columns prompt={name}" in refusal(pair)
    right = [("Which letter?", "I think a", 1), ("Which letter?", "I think b", -1)]
    assert read(pair, asked=f"prompt={name}") == right


def test_a_pair_beside_other_texts_has_what_both_begin_with_as_its_prompt() -> None:
    pair = {"chosen": "I think a", "rejected": "I think b", "user_id": "u", "category": "x y", "rationale": "z"}
    assert read(pair) == [("I think", " a", 1), ("I think", " b", -1)]


def test_an_input_beside_a_text_that_may_be_its_instruction_is_refused() -> None:
    row = {"definition": "Translate to French.", "input": "cat", "output": "chat", "label": 1}
    assert "column definition may be the instruction of input: add --columns instruction=definition" in refusal(row)
    assert read(row, asked="instruction=definition") == [("Translate to French.\ncat", "chat", 1)]
    named = {"task": "translation", "input": "Translate cat.", "output": "chat", "label": 1}
    assert read(named) == [("Translate cat.", "chat", 1)]
