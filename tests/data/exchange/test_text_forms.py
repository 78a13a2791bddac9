"""Every form of text data becomes the responses that it says, and what cannot be one is refused or counted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from helpers.imports import refused
from helpers.imports import responses as read
from helpers.texts import lmsys, said, ultrafeedback

from pmpo_offline.data.exchange.forms import FORMS, Form

NAN = math.nan


refusal = partial(refused, read)


def test_unpaired() -> None:
    rows = [{"prompt": "p", "completion": f"c{i}", "label": label} for i, label in enumerate([True, 0, 1.0, None, "0"])]
    name, found = read(*rows)
    assert name == "TRL unpaired"
    assert found == [("p", f"c{i}", score) for i, score in enumerate([1, -1, 1, None, -1])]
    conversational = {"prompt": said("one", "two", "three"), "completion": said("x", "four")[1:], "label": False}
    assert read(conversational)[1] == [(["one", "two", "three"], "four", -1)]


@pytest.mark.parametrize("label", ["maybe", 2, 0.5, [True], "so so"])
def test_labels_that_are_neither_boolean_nor_0_or_1(label: Any) -> None:
    good = {"prompt": "p", "completion": "c", "label": True}
    told = refusal(good, good | {"label": label})
    assert told.startswith("rows, line 2: expected true, false, 1, 0, -1, up, down or null in column label, found ")


def test_paired() -> None:
    assert read({"prompt": "p", "chosen": "good", "rejected": "bad"}) == (
        "TRL paired",
        [("p", "good", 1), ("p", "bad", -1)],
    )
    conversational = {"prompt": said("p"), "chosen": said("", "good")[1:], "rejected": said("", "bad")[1:]}
    assert read(conversational)[1] == [(["p"], "good", 1), (["p"], "bad", -1)]
    scores = {"score_chosen": 8.5, "score_rejected": 2}
    assert read(conversational | scores, score="score")[1] == [(["p"], "good", 8.5), (["p"], "bad", 2)]


def test_a_prompt_that_is_implied() -> None:
    """Whole conversations in both columns, as ultrafeedback_binarized has them beside the prompt's text."""
    both = {"chosen": said("p", "q", "r", "good"), "rejected": said("p", "q", "r", "bad")}
    due = [(["p", "q", "r"], "good", 1), (["p", "q", "r"], "bad", -1)]
    assert read(both) == ("TRL paired, prompt implied", due)
    assert read({"prompt": "r", **both, "messages": both["chosen"]}) == ("TRL paired", due)
    assert read({"chosen": "The sky is blue.", "rejected": "The sky is black."})[1] == [
        ("The sky is", " blue.", 1),  # no word is cut in two
        ("The sky is", " black.", -1),
    ]
    assert read({"chosen": "One", "rejected": "Two"})[1] == [
        ("chosen and rejected share no beginning to be the prompt", 2)
    ]
    other = {"chosen": said("p", "q", "r", "good"), "rejected": said("p", "x", "r", "bad")}
    assert read(both, other)[1][2:] == [("the conversations differ before the last turn", 2)]


def test_hh_transcripts_are_split_where_both_come_to_the_last_turn() -> None:
    start = "\n\nHuman: hello\n\nAssistant: hi\n\nHuman: how?\n\nAssistant:"
    row = {"chosen": start + " like this\n\nand so", "rejected": start + " like no"}
    name, found = read(row)
    assert name == "HH-RLHF transcripts"
    assert found == [(start, " like this\n\nand so", 1), (start, " like no", -1)]
    for prompt, completion, _ in found:
        assert prompt + completion in row.values()  # not a letter is lost
    assert read(row, transcripts=False)[1][0] == (["hello", "hi", "how?"], "like this\n\nand so", 1)


ASKED, FURTHER = "\n\nHuman: a\n\nAssistant:", "\n\nHuman: c\n\nAssistant: d"


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        (ASKED + " b" + FURTHER, ASKED + " x", "differ before"),
        (ASKED + " b", ASKED + " x" + FURTHER, "differ before"),
        (ASKED + " b", ASKED + " b", "are equal"),
        ("\n\nHuman: a", ASKED + " b", "is no transcript"),
        (None, ASKED + " b", "chosen is null"),
    ],
)
def test_hh_transcripts_that_are_no_pair(chosen: str | None, rejected: str, reason: str) -> None:
    good = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}
    (dropped,) = read(good, {"chosen": chosen, "rejected": rejected})[1][2:]
    assert reason in dropped[0]
    assert dropped[1] == 2


def test_several_scored_responses_a_prompt() -> None:
    name, found = read(ultrafeedback(0, [8.0, None]), ultrafeedback(1, [3]))
    assert name == "several scored responses a prompt"
    assert found == [
        ("instruction 0", "response 0.0", 8),
        ("instruction 0", "response 0.1", None),
        ("instruction 1", "response 1.0", 3),
    ]
    assert read(ultrafeedback(0, [8.0]), score="fine-grained_score")[1][0][2] == 2
    row = ultrafeedback(0, [8.0])
    assert "rows, line 1, completion 1: lacks honesty" in refusal(row, score="honesty")
    del row["completions"][0]["response"]
    assert "completion 1: lacks response: it holds model, principle, annotations" in refusal(row)


def test_one_scored_response_a_row() -> None:
    row = {"instruction": "p", "response": "c", "rating": "4.5", "quality": 7}
    assert read(row) == ("one scored response a row", [("p", "c", 4.5)])
    assert read(row, score="quality")[1] == [("p", "c", 7)]
    assert "line 2: expected a number in column rating, found 'good'" in refusal(row, row | {"rating": "good"})
    assert "found '4,5' (write 4.5 if that is meant)" in refusal(row | {"rating": "4,5"})
    assert "found inf" in refusal(row | {"rating": math.inf})
    assert read(row | {"rating": NAN}, row | {"rating": None})[1] == [("p", "c", None)] * 2


@pytest.mark.parametrize(
    ("thumb", "score"),
    [(True, 1), (False, -1), (1, 1), (0, -1), ("up", 1), ("down", -1), (-1, -1), ("+1", 1), ("👍", 1), (None, None)],
)
def test_thumbs(thumb: Any, score: float | None) -> None:
    row = {"messages": said("p", "q", "r", "s"), "label": thumb}
    assert read(row) == ("messages with feedback", [(["p", "q", "r"], "s", score)])


def test_thumbs_that_say_nothing_certain() -> None:
    rows = [{"messages": said("p", "q"), "thumbs": value} for value in (1, -1, 0)]
    assert "rows, line 3: column thumbs holds both 0 and -1" in refusal(*rows)
    assert read({"messages": said("p", "q"), "thumbs": 1, "stars": 4}, score="stars")[1] == [(["p"], "q", 4)]
    for messages, reason in (
        (said("p"), "messages does not end with the assistant's turn"),
        (said("p", "q")[1:], "messages has an assistant's turn that answers no other turn"),
        ([{"role": "tool", "content": "x"}], "messages has a turn of role 'tool'"),
        (said("p", ""), "messages's content is empty"),
        ([], "messages is empty"),
        ({}, "messages is empty"),
        (None, "messages is null"),
    ):
        assert read({"messages": messages, "label": 1})[1] == [(reason, 1)]
    assert "expected a message with role and content in messages, found 'x'" in refusal({"messages": ["x"], "label": 1})


def test_every_turn_of_an_lmsys_conversation_is_a_response() -> None:
    name, found = read(lmsys(7, [False, False, True, True, False, False], redacted=False))
    assert name == "LMSYS-Chat-1M conversations"
    turns = [f"conversation 7 turn {place}" for place in range(6)]
    # Its own moderation decides, not the one of what it answers.
    assert found == [(turns[:1], turns[1], 1), (turns[:3], turns[3], -1), (turns[:5], turns[5], 1)]
    row = lmsys(7, [False] * 4, redacted=False)
    assert [each[2] for each in read(row | {"win": 3}, score="win")[1]] == [3, 3]
    assert [each[2] for each in read(row | {"win": [None, 1, None, 2]}, score="win")[1]] == [1, 2]
    assert "a number a message in column win, found 1 for 4 messages" in refusal(row | {"win": [1]}, score="win")
    for without in (None, [], [{"flagged": False}]):
        assert [each[2] for each in read(row | {"openai_moderation": without})[1]] == [None, None]


def test_labels_do_not_follow_redaction() -> None:
    for flags in ([False, False], [False, True], [True, False]):
        scores = {read(lmsys(0, flags, redacted=redacted))[1][0][2] for redacted in (True, False)}
        assert scores == {-1 if flags[1] else 1}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "prompt is null"),
        ("", "prompt is empty"),
        (" \n", "prompt is empty"),
        ("a\0b", "prompt holds a NUL"),
        ("\ud800", "prompt is no valid"),
    ],
)
def test_texts_that_cannot_be_kept_are_counted(text: str | None, reason: str) -> None:
    good = {"prompt": "p", "completion": "c", "label": True}
    (dropped,) = read(good, good | {"prompt": text})[1][1:]
    assert dropped[0].startswith(reason)


def test_columns_that_make_no_form() -> None:
    told = refusal({"text": "a", "label": 1})
    assert told.startswith("rows, line 1: not recognised by the columns text, label: say what they mean")
    assert "columns prompt=" in told
    assert "of pairs prompt=question,chosen=better,rejected=worse" in told
    assert "not recognised" in refusal({"prompt": "a", "completion": "b"})
    assert "not recognised" in refusal({"conversation": [], "verdict": "fine"})
    assert "there is no column stars: it holds prompt, completion, label" in refusal(
        {"prompt": "a", "completion": "b", "label": 1}, score="stars"
    )
    assert "there is no column stars_chosen" in refusal({"prompt": "a", "chosen": "b", "rejected": "c"}, score="stars")


def test_forms_are_not_mixed() -> None:
    plain, pair = {"prompt": "p", "completion": "c", "label": 1}, {"prompt": "p", "chosen": "c", "rejected": "d"}
    assert "rows, line 2: lacks completion, label, which the rows before have (TRL unpaired)" in refusal(plain, pair)
    conversational = {"prompt": said("p"), "completion": said("", "c")[1:], "label": 1}
    assert "line 2: found a conversation, and the rows before hold plain text" in refusal(plain, conversational)
    assert "line 2: found plain text, and the rows before hold a conversation" in refusal(conversational, plain)
    assert "expected text in prompt, found 3" in refusal(plain | {"prompt": 3})


@pytest.mark.parametrize("name", FORMS)
def test_the_example_of_every_form_is_of_that_form(name: str) -> None:
    form: Form = FORMS[name]
    found, responses = read(*map(dict, form.examples))
    assert found == form.name
    assert responses
    assert all(len(each) == 3 for each in responses), "a response each, no drops"


@pytest.mark.parametrize("write", [json.dumps, repr])
@pytest.mark.parametrize("name", FORMS)
def test_lists_and_objects_may_be_text_cells_in_every_form(name: str, write: Callable[[Any], str]) -> None:
    rows = list(map(dict, FORMS[name].examples))
    cells = [
        {key: write(value) if isinstance(value, list | dict) else value for key, value in row.items()} for row in rows
    ]
    assert read(*cells) == read(*rows)


# Columns that say something are read, or refused by name


def test_input_goes_on_from_the_instruction() -> None:
    rows = [{"instruction": "Say:", "input": word, "response": word.upper(), "label": 1} for word in ("a", "b", "")]
    assert [each[0] for each in read(*rows)[1][:2]] == ["Say:\na", "Say:\nb"]
    assert read(*rows)[1][2] == ("completion is empty", 1)
    whole = {"prompt": "### Input:\ncat", "input": "cat", "completion": "c", "label": 1}
    assert read(whole)[1][0][0] == "### Input:\ncat"  # it is there already
    assert read(whole | {"input": None})[1][0][0] == "### Input:\ncat"
    assert "expected text in input" in refusal(whole | {"input": {"a": 1}})
    pair = {"instruction": "Say", "input": "yes", "chosen": "yes", "rejected": "no"}
    assert read(pair)[1][0][0] == "Say\nyes"
    assert read({"input": "q", "chosen": "a b", "rejected": "a c"})[1][0][0] == "q"  # as in distilabel's Orca pairs


def test_question_is_a_prompt_and_two_prompts_are_refused() -> None:
    pair = {"question": "q", "chosen": "a b", "rejected": "a c"}
    assert read(pair) == ("TRL paired", [("q", "a b", 1), ("q", "a c", -1)])
    row = {"prompt": "p", "question": "q", "completion": "c", "label": 1}
    assert "columns prompt and question hold different prompts: leave one of them out" in refusal(row)
    assert read(row | {"prompt": "Question:\nq\nAnswer:"})[1] == [("Question:\nq\nAnswer:", "c", 1)]


def test_system_and_history_make_a_conversation() -> None:
    row = {"system": "Answer in French", "prompt": "cat?", "completion": "chat", "label": True}
    assert read(row)[1] == [(["Answer in French", "cat?"], "chat", 1)]
    assert read(row | {"system": ""})[1] == read(row | {"system": None})[1] == [("cat?", "chat", 1)]
    talk = row | {"system": None, "history": [["one", "two"]]}
    assert read(talk)[1] == [(["one", "two", "cat?"], "chat", 1)]
    assert read(talk | {"history": said("one", "two")})[1] == read(talk)[1]
    assert "expected a list as JSON or a Python literal in column history" in refusal(talk | {"history": "one two"})
    thumbs = {"messages": said("p", "q"), "label": 1, "system": "s"}
    assert read(thumbs)[1] == [(["s", "p"], "q", 1)]
    own = {"messages": [{"role": "system", "content": "t"}, *said("p", "q")], "label": 1, "system": "s"}
    assert "column system and the conversation's own system message differ" in refusal(own)
    assert "column system says something" in refusal(
        {"system": "s", "chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}
    )


def test_tools_and_their_calls_are_dropped_with_a_reason() -> None:
    call = [said("p")[0], {"role": "assistant", "content": "let me look", "tool_calls": [{"name": "f"}]}]
    assert read({"messages": call, "label": 0})[1] == [("messages has tool_calls, which a text has no place for", 1)]
    none = [said("p")[0], {"role": "assistant", "content": "r", "tool_calls": None}]
    assert read({"messages": none, "label": 0, "tools": []})[1] == [(["p"], "r", -1)]
    pair = {"prompt": "p", "chosen": "a", "rejected": "b", "tools": '[{"name": "f"}]'}
    assert read(pair)[1] == [("column tools is used, which a text has no place for", 1)] * 2


def test_columns_that_contradict_each_other_are_refused_by_name() -> None:
    row = {"prompt": "q", "completion": "good answer", "label": True, "messages": said("q", "good answer")}
    assert read(row)[1] == [(["q"], "good answer", 1)]  # they say the same
    assert "line 2: column completion says something that label, messages do not" in refusal(
        row, row | {"completion": "bad answer"}
    )
    assert "columns label and thumbs contradict each other" in refusal(
        {"prompt": "q", "completion": "c", "label": True, "thumbs": "down"}
    )
    flagged = lmsys(0, [False, False], redacted=False) | {"label": 0}
    assert "column label says something that conversation, openai_moderation do not" in refusal(flagged)
    assert "column response says something" in refusal({"prompt": "q", "completion": "c", "response": "d", "label": 1})
    scored = {"prompt": "p", "completion": "c", "rating": 3}
    assert "line 2: holds a column score, and the rows before hold rating" in refusal(scored, scored | {"score": 9})


def test_scales_are_not_mixed_within_a_prompt() -> None:
    row = ultrafeedback(0, [8.0, 3.0])
    del row["completions"][1]["overall_score"]
    assert "line 1, completion 2: lacks overall_score" in refusal(row)


# What texts are written as


@pytest.mark.parametrize("write", [json.dumps, repr])
def test_conversations_in_text_cells_are_parsed(write: Callable[[Any], str]) -> None:
    both = {"chosen": write(said("q", "yes it is")), "rejected": write(said("q", "no it is not"))}
    assert read(both)[1] == [(["q"], "yes it is", 1), (["q"], "no it is not", -1)]
    assert read({"messages": write(said("q", "a")), "label": "1"})[1] == [(["q"], "a", 1)]
    row = {"prompt": write(said("q")), "completion": write(said("q", "a")[1]), "label": 1}
    assert read(row)[1] == [(["q"], "a", 1)]
    several = ultrafeedback(0, [8.0, 2.0])
    assert read(several | {"completions": write(several["completions"])}) == read(several)


def test_text_cells_that_only_look_like_conversations() -> None:
    broken = "[{'role': 'user', 'content': 'q'}\n {'role': 'assistant', 'content': 'a'}]"  # as NumPy prints arrays
    assert "expected a list as JSON or a Python literal in column messages" in refusal({"messages": broken, "label": 1})
    for text in ('{"role": "engineer", "skills": []}', "[1, 2]", '{"a": 1}', "[INST] q [/INST]"):
        assert read({"prompt": "p", "completion": text, "label": 1})[1] == [("p", text, 1)]


def test_bytes_are_no_text() -> None:
    assert "line 1: expected text in prompt, found bytes" in refusal({"prompt": b"p", "completion": "c", "label": 1})


def test_a_text_beside_a_conversation_is_one_turn() -> None:
    assert read({"prompt": said("q"), "completion": "plain", "label": 0})[1] == [(["q"], "plain", -1)]
    assert read({"prompt": "q", "completion": said("q", "a")[1:], "label": 1})[1] == [(["q"], "a", 1)]
    assert read({"prompt": "q", "chosen": said("q", "a")[1:], "rejected": said("q", "b")[1:]})[1] == [
        (["q"], "a", 1),
        (["q"], "b", -1),
    ]
    stated = {"prompt": "other", "chosen": said("q", "a"), "rejected": said("q", "b")}
    assert "column prompt is no turn of the conversations in chosen and rejected" in refusal(stated)


def test_words_are_labels() -> None:
    rows = [{"prompt": "p", "completion": name, "label": name} for name in ("accept", "neg", "1", "Good")]
    assert [each[2] for each in read(*rows)[1]] == [1, -1, 1, 1]
    assert "line 1: expected true, false, 1, 0, -1" in refusal(rows[0] | {"label": "other"})


def test_a_turn_that_cannot_be_kept_costs_itself_and_those_after_it() -> None:
    row = lmsys(0, [False] * 6, redacted=False)
    for turn, kept, lost in ((5, 2, 1), (3, 1, 2), (2, 1, 2)):
        talk = [dict(each) for each in row["conversation"]]
        talk[turn]["content"] = " "
        found = read(row | {"conversation": talk})[1]
        assert [len(each) for each in found] == [3] * kept + [2] * lost
        assert {each[0] for each in found[kept:]} == {"conversation's content is empty"}


def test_a_transcript_that_ends_with_the_human_is_dropped() -> None:
    start = "\n\nHuman: hi\n\nAssistant:"
    row = {"chosen": f"{start} hello\n\nHuman: thanks!", "rejected": f"{start} no"}
    assert read(row)[1] == [("chosen does not end with the Assistant's turn", 2)]


def test_columns_of_other_names_tell_rows_apart() -> None:
    row = {"prompt": "q", "completion": "c", "label": 1}
    assert read(row | {"system_message": "s"})[1] == [(["s", "q"], "c", 1)]
    assert read(row | {"chat_history": [["a", "b"]]})[1] == [(["a", "b", "q"], "c", 1)]
    assert read(row | {"passage": "text"})[1] == [("q\ntext", "c", 1)]
    assert read(row | {"images": ["x.png"]})[1] == [("column images is used, which a text has no place for", 1)]
    whole = {"prompt": "q", "chosen": said("q", "a"), "rejected": said("q", "b")}
    assert read(whole | {"system": "s"})[1] == [(["s", "q"], "a", 1), (["s", "q"], "b", -1)]
    assert "column context is no turn of the conversations" in refusal(whole | {"context": "c"})
    assert "column label says something that chosen, prompt, rejected do not" in refusal(
        {"prompt": "q", "chosen": "a", "rejected": "b", "label": 0}
    )
    assert read({"prompt": "q", "chosen": "q a", "rejected": "q b"})[1] == [
        ("chosen and rejected repeat the prompt", 2)
    ]
    assert read(row | {"label": None, "feedback": None})[1] == [("q", "c", None)]


@pytest.mark.parametrize("write", [json.dumps, repr, list])
def test_turns_as_sharegpt_writes_them(write: Callable[[Any], Any]) -> None:
    talk = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    assert read({"messages": write(talk), "label": 1})[1] == [(["q"], "a", 1)]


def test_bytes_in_other_columns_are_refused() -> None:
    row = {"prompt": "p", "completion": "c", "label": 1}
    for name in ("source", "model", "language", "system", "input"):
        assert f"expected text in {name}, found bytes" in refusal(row | {name: b"x"})
    assert "found b'1'" in refusal(row | {"label": b"1"})
    assert "expected text in messages's content, found bytes" in refusal(
        {"messages": [{"role": "user", "content": b"q"}], "label": 1}
    )
