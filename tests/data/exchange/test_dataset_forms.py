"""Rows as public data sets have them, of their cards' columns: which responses they are, and which are accepted."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from helpers.imports import refused
from helpers.imports import responses as read
from helpers.texts import said

U, A = (lambda text: {"role": "user", "content": text}), (lambda text: {"role": "assistant", "content": text})


refusal = partial(refused, read)


def test_kto_mix_15k_has_whole_conversations_as_completions() -> None:
    row = {"prompt": "q", "completion": [A("x") | {"content": "q", "role": "user"}, A("a")], "label": True}
    row |= {"rating": 5.0, "dataset": "capybara"}
    assert read(row) == ("TRL unpaired", [(["q"], "a", 1)])
    longer = row | {"prompt": "q2", "completion": said("q", "a", "q2", "a2"), "label": False}
    assert read(longer)[1] == [(["q", "a", "q2"], "a2", -1)]
    assert read(longer | {"prompt": said("q")})[1] == [(["q", "a", "q2"], "a2", -1)]
    assert "column prompt is no turn of the conversation in completion" in refusal(row | {"prompt": "other"})


def test_pku_saferlhf_has_a_label_for_each_response() -> None:
    row = {
        "prompt": "q",
        "response_0": "a",
        "response_1": "b",
        "is_response_0_safe": False,
        "is_response_1_safe": False,
    }
    row |= {"better_response_id": 1, "safer_response_id": 0, "response_0_severity_level": 2}
    assert read(row) == ("PKU-SafeRLHF", [("q", "a", -1), ("q", "b", -1)])
    assert read(row, score="better_response_id")[1] == [("q", "a", -1), ("q", "b", 1)]
    assert read(row, score="safer_response_id")[1] == [("q", "a", 1), ("q", "b", -1)]
    assert "score response_0_severity_level scores no response" in refusal(row, score="response_0_severity_level")


def test_beavertails() -> None:
    row = {"prompt": "q", "response": "a", "category": {"animal_abuse": False}, "is_safe": False}
    assert read(row, row | {"is_safe": True}) == ("TRL unpaired", [("q", "a", -1), ("q", "a", 1)])


def message(id: str, parent: str | None, text: str, **more: Any) -> dict[str, Any]:
    role = "prompter" if len(id) % 2 else "assistant"
    return {"message_id": id, "parent_id": parent, "role": role, "text": text, "lang": "en", "deleted": False} | more


TREE = [
    message("abc", "ab", "more?"),  # a reply may come before what it replies to
    message("a", None, "q", rank=None),
    message("ab", "a", "good", rank=0, review_result=True, labels={"name": ["spam", "quality"], "value": [0.0, 0.9]}),
    message("ac", "a", "worse", rank=1, review_result=True, labels={"name": ["spam", "quality"], "value": [0.0, 0.2]}),
    message("abcd", "abc", "only one", rank=None, labels=None),
    message("ad", "a", "spam", rank=2, review_result=False, labels=None),
]


def test_messages_of_oasst_make_a_response_of_every_path() -> None:
    name, found = read(*TREE)
    assert name == "OASST messages"
    assert found == [
        (["q"], "good", 1),
        (["q"], "worse", -1),
        (["q", "good", "more?"], "only one", None),
        (["q"], "spam", -1),
    ]
    assert [each[2] for each in read(*TREE, score="quality")[1]] == [0.9, 0.2, None, None]
    orphan = message("xx", "gone", "text", rank=0)
    deleted = message("ab", "a", "text", rank=0, deleted=True)
    loop = [message("xy", "z", "a", rank=0), message("z", "xy", "b")]
    missing = ("the message that it replies to is not in the file", 1)
    assert read(TREE[1], orphan, deleted, *loop)[1] == [
        missing,
        ("the message was deleted, or one that it follows", 1),
        missing,
    ]


def test_trees_of_oasst_are_the_same() -> None:
    nodes = {each["message_id"]: {**each, "replies": []} for each in TREE}
    for each in TREE:
        if each["parent_id"]:
            nodes[each["parent_id"]]["replies"].append(nodes[each["message_id"]])
    nested = json.loads(json.dumps({"message_tree_id": "a", "tree_state": "ready_for_export", "prompt": nodes["a"]}))
    name, found = read(nested)
    assert name == "OASST trees"
    assert sorted(found, key=str) == sorted(read(*TREE)[1], key=str)


@pytest.mark.parametrize(
    ("winner", "scores"),
    [
        ("model_a", (1, -1)),
        ("model_b", (-1, 1)),
        ("tie", (None, None)),
        ("tie (bothbad)", (-1, -1)),
        ("both_bad", (-1, -1)),
        (None, (None, None)),
    ],
)
def test_votes_of_the_arena(winner: str | None, scores: tuple[float, float]) -> None:
    row = {"model_a": "m", "model_b": "n", "winner": winner, "language": "English", "turn": 2}
    row |= {"conversation_a": said("q", "a", "r", "b"), "conversation_b": said("q", "c", "r", "d")}
    found = [(["q", "a", "r"], "b", scores[0]), (["q", "c", "r"], "d", scores[1])]
    assert read(row) == ("Chatbot Arena votes", found)
    text = row | {side: json.dumps(row[side]) for side in ("conversation_a", "conversation_b")}
    assert read(text)[1] == found
    parts = row | {
        side: [turn | {"content": [{"type": "text", "text": turn["content"]}]} for turn in row[side]]
        for side in ("conversation_a", "conversation_b")
    }
    assert read(parts)[1] == found  # as arena-human-preference-140k has them
    assert read(parts | {"conversation_a": [U("x") | {"content": [{"type": "image", "image": "…"}]}, A("y")]})[1] == [
        ("conversation_a has image, which a text has no place for", 2)
    ]
    assert "expected one of model_a" in refusal(row | {"winner": "gpt-4"})
    assert "lacks a column prompt" in refusal(row | {"conversation_a": "plain text", "conversation_b": "text"})


def test_votes_of_the_arena_as_lists() -> None:
    row = {"id": 1, "model_a": "m", "model_b": "n", "prompt": '["q", "r"]', "response_a": '["a", "b"]'}
    row |= {"response_b": '["c", "d"]', "winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0}
    assert read(row)[1] == [(["q", "a", "r"], "b", -1), (["q", "c", "r"], "d", 1)]
    assert read(row | {"winner_model_b": 0, "winner_tie": 1})[1][0][2] is None
    assert read(row | {"response_a": '["a", null]'})[1] == [("response_a's content is null", 2)]
    assert "to be 1" in refusal(row | {"winner_model_a": 1})
    plain = {"prompt": "q", "response_a": "a", "response_b": "b", "winner": "both_bad"}
    assert read(plain) == ("two responses and the winner", [("q", "a", -1), ("q", "b", -1)])


@pytest.mark.parametrize(("strength", "scores"), [(-3, (1, -1)), (2, (-1, 1)), (0, (None, None)), (None, (None, None))])
def test_helpsteer_preferences(strength: int | None, scores: tuple[float, float]) -> None:
    three = {"domain": "general", "language": "english", "context": [U("q"), A("a"), U("r")]}
    three |= {"response1": "b", "response2": "c", "overall_preference": strength, "individual_preference": []}
    assert read(three) == (
        "HelpSteer3 preference",
        [(["q", "a", "r"], "b", scores[0]), (["q", "a", "r"], "c", scores[1])],
    )
    two = {"prompt": "q", "response_1": "b", "response_2": "c", "preference_strength": strength, "split": "train"}
    assert read(two) == ("HelpSteer2 preference", [("q", "b", scores[0]), ("q", "c", scores[1])])


def test_helpsteer_ratings() -> None:
    row = {"prompt": "q", "response": "a", "helpfulness": 3, "correctness": 4, "coherence": 4, "verbosity": 1}
    assert read(row) == ("one scored response a row", [("q", "a", 3)])
    assert read(row, score="verbosity")[1] == [("q", "a", 1)]


def test_wildfb() -> None:
    row = {"id": "1", "history": [], "text": "…", "messages": said("q", "a"), "user_feedback": "Thanks!", "label": 4}
    assert read(row) == ("WildFB", [(["q"], "a", 4)])
    before = row | {"history": said("o", "p"), "user_feedback": U("no"), "label": 1}
    assert read(before)[1] == [(["o", "p", "q"], "a", 1)]
    assert read(before | {"messages": said("o", "p", "q", "a")})[1] == [(["o", "p", "q"], "a", 1)]
    assert [each[2] for each in read(row, before, accept=("3", "4"))[1]] == [1, -1]
    assert "expected 1, 2, 3 or 4 in column label, found 0" in refusal(row | {"label": 0})
    log = {"messages": said("q", "a"), "user_feedback": "Thanks!", "label": 1}  # a thumb, beside what was said
    assert read(log)[1] == [(["q"], "a", 1)]


def test_shp() -> None:
    row = {"post_id": "x", "domain": "askacademia", "history": "q", "human_ref_A": "a", "human_ref_B": "b"}
    row |= {"labels": 0, "score_A": 4, "score_B": 9, "upvote_ratio": 0.9}
    assert read(row, row | {"labels": 1}) == (
        "Stanford Human Preferences",
        [("q", "a", -1), ("q", "b", 1), ("q", "a", 1), ("q", "b", -1)],
    )
    assert read(row, score="score")[1] == [("q", "a", 4), ("q", "b", 9)]


def test_nectar() -> None:
    answers = [{"answer": f"a{rank}", "model": "m", "rank": rank} for rank in (1, 2, 7)]
    row = {
        "prompt": "\n\nHuman: q\n\nAssistant: ",
        "answers": answers,
        "turns": 1,
        "source": ["x"],
        "good_natured": True,
    }
    assert read(row) == (
        "several scored responses a prompt",
        [("\n\nHuman: q\n\nAssistant: ", f"a{rank}", -rank) for rank in (1, 2, 7)],
    )


def test_ultrafeedback_in_both_forms_and_as_parallel_lists() -> None:
    completions = [{"response": f"a{i}", "model": "m", "overall_score": i, "custom_system_prompt": "s"} for i in (2, 9)]
    assert read({"instruction": "q", "completions": completions})[1] == [("q", "a2", 2), ("q", "a9", 9)]
    columnar = {key: [each[key] for each in completions] for key in completions[0]}
    assert read({"instruction": "q", "completions": columnar})[1] == [("q", "a2", 2), ("q", "a9", 9)]
    pair = {"prompt": "q", "chosen": said("q", "a"), "rejected": said("q", "b"), "score_chosen": 8, "score_rejected": 3}
    assert read(pair | {"messages": said("q", "a"), "prompt_id": "5f3a"})[1] == [(["q"], "a", 1), (["q"], "b", -1)]
    argilla = {"instruction": "q", "chosen_response": "a", "rejected_response": "b", "chosen_avg_rating": 4.5}
    argilla |= {"rejected_avg_rating": 2.0}
    assert read(argilla)[1] == [("q", "a", 1), ("q", "b", -1)]
    assert read(argilla, score="avg_rating")[1] == [("q", "a", 4.5), ("q", "b", 2)]
    cleaned = {
        "prompt": "q",
        "chosen": said("q", "a"),
        "rejected": said("q", "b"),
        "chosen-rating": 5.0,
        "rejected-rating": 1.0,
    }
    assert read(cleaned, score="rating")[1] == [(["q"], "a", 5), (["q"], "b", 1)]
    lists = {"input": "q", "generations": ["a", "b"], "rating": [4.0, 1.0]}
    assert read(lists)[1] == [("q", "a", 4), ("q", "b", 1)]
    assert "expected a score for each of the 2 items" in refusal(lists | {"rating": [4.0]})


def test_sharegpt_and_llama_factory() -> None:
    talk = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}, {"from": "human", "value": "r"}]
    whole = [*talk, {"from": "gpt", "value": "b"}]
    unrated = ("conversations without feedback", [(["q"], "a", None), (["q", "a", "r"], "b", None)])
    assert read({"id": "x", "conversations": whole}) == unrated
    assert read({"conversations": whole, "kto_tag": "true"})[1] == [(["q", "a", "r"], "b", 1)]
    pair = {"conversations": talk, "chosen": {"from": "gpt", "value": "b"}, "rejected": {"from": "gpt", "value": "c"}}
    assert read(pair)[1] == [(["q", "a", "r"], "b", 1), (["q", "a", "r"], "c", -1)]
    alpaca = {
        "instruction": "Say",
        "input": "x",
        "output": "a",
        "kto_tag": False,
        "system": "s",
        "history": [["o", "p"]],
    }
    assert read(alpaca)[1] == [(["s", "o", "p", "Say\nx"], "a", -1)]


def test_trl_stepwise_supervision() -> None:
    row = {"prompt": "q", "completions": ["one", "two", "three"], "labels": [True, True, False]}
    assert read(row) == (
        "TRL stepwise supervision",
        [("q\n", "one", 1), ("q\none\n", "two", 1), ("q\none\ntwo\n", "three", -1)],
    )
    assert read(row | {"completions": ["one", " ", "three"]})[1][1:] == [("step is empty", 2)]
    assert "found 2 labels for 3 completions" in refusal(row | {"labels": [1, 0]})


def test_orca_pairs() -> None:
    row = {"system": "s", "question": "q", "chosen": "a", "rejected": "b"}
    due = [(["s", "q"], "a", 1), (["s", "q"], "b", -1)]
    assert read(row) == ("TRL paired", due)
    distilabel = {
        "system": "s",
        "input": "q",
        "chosen": "a",
        "rejected": "b",
        "rating": [9.0, 7.0],
        "status": "unchanged",
    }
    assert read(distilabel | {"generations": ["a", "b"]})[1] == due
    assert read(distilabel | {"status": "tie"})[1] == [("chosen and rejected are a tie", 2)]


@pytest.mark.parametrize(
    ("thumbs", "score"),
    [
        ({"thumbsUp": True}, 1),
        ({"thumbs_up": 0}, -1),
        ({"Thumbs": "thumbsUp"}, 1),
        ({"feedback": "thumbs-down"}, -1),
        ({"feedback": {"rating": "thumbsDown", "tag": "inaccurate"}}, -1),
        ({"vote": "+1"}, 1),
        ({"label": -1}, -1),
        ({"label": "Yes"}, 1),
        ({"vote": "👎🏽"}, -1),
        ({"feedback": "neutral"}, None),
        ({"thumbsUp": False, "thumbsDown": False}, None),
        ({"thumbsUp": False, "thumbsDown": True}, -1),
    ],
)
def test_thumbs_of_chat_front_ends(thumbs: dict[str, Any], score: float | None) -> None:
    assert read({"Question": "q", "Answer": "a"} | thumbs)[1] == [("q", "a", score)]
    turns = {"messages": [U("q"), A("a") | {"feedback": next(iter(thumbs.values()))}, U("r"), A("b")]}
    if len(thumbs) == 1:
        assert read(turns)[1] == [(["q"], "a", score), (["q", "a", "r"], "b", None)]
    asked = [U("q") | {"feedback": "up"}, A("a")]
    assert "feedback is on a turn of role 'user'" in refusal({"messages": asked})
    assert "are both set" in refusal({"question": "q", "answer": "a", "thumbs_up": 1, "thumbs_down": 1})


# The long tail


def test_columns_of_other_names() -> None:
    row = {"q": "p", "text": "c", "verdict": {"by": "x", "is": "fine"}, "label": "from elsewhere"}
    asked = "prompt=q,completion=text,label=verdict.is"
    assert read(row, asked=asked, accept=("fine",))[1] == [("p", "c", 1)]
    signs = [row | {"verdict": {"is": sign}} for sign in ("+", "", "-")]
    assert [each[2] for each in read(*signs, asked=asked, accept=("+",))[1]] == [1, None, -1], "+ is no empty label"
    assert read(row, row | {"verdict": {"is": "poor"}}, asked=asked, accept=("Fine",))[1][1] == ("p", "c", -1)
    assert read({"q": "p", "text": "c", "points": 3}, asked="prompt=q,completion=text,score=points")[1] == [
        ("p", "c", 3)
    ]
    assert "there is no column x: it holds q, text" in refusal(row, asked="prompt=x")
    assert "unknown meaning of a column 'promt': did you mean prompt" in refusal(row, asked="promt=q")
    assert "several columns called label: rename Label" in refusal(
        {"prompt": "p", "completion": "c", "label": 1, "Label": 0}
    )
    assert "write MEANING=COLUMN" in refusal(row, asked="prompt")
    assert "names a column or a meaning twice" in refusal(row, asked="prompt=q,completion=q")


def test_accept_says_which_values_of_a_column_are_accepted() -> None:
    rows = [{"prompt": "p", "response": str(stars), "stars": stars} for stars in (5, 4, 3, None)]
    assert [each[2] for each in read(*rows, score="stars", accept=("5", "4"))[1]] == [1, 1, -1, None]
    words = [{"prompt": "p", "response": word, "label": word} for word in ("Correct!", "partly", "bad")]
    assert [each[2] for each in read(*words, accept=("correct!", "partly"))[1]] == [1, 1, -1]
