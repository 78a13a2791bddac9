"""Forms that hold a conversation a row, with feedback on its last turn, on each turn, or on none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from pmpo_offline.data.exchange.forms import columns
from pmpo_offline.data.exchange.forms.cells import filled, first_filled, is_list, role_of, short
from pmpo_offline.data.exchange.forms.columns import CHATS, HISTORY, LABELS, SCORES, SYSTEM, WORDS, inside, word_of
from pmpo_offline.data.exchange.forms.conversation import (
    after_history,
    caught,
    conversation,
    is_blank_system,
    is_weightless,
    messages_of,
    turn,
    unanswerable,
    with_system,
)
from pmpo_offline.data.exchange.forms.form import Form
from pmpo_offline.data.exchange.forms.names import is_about_row
from pmpo_offline.data.exchange.forms.reading import Reading
from pmpo_offline.data.exchange.forms.row import Drop, Message, Response, Row, about, is_cut_off

_ON_TURNS = (*LABELS, "rating", "score", "annotation")
"""Keys of the feedback on a turn."""
_IDS = ("id", "conversation_id", "conversation_hash", "turn", "title", "dataset", "tools")
_BESIDE = {*columns.ABOUT, *SYSTEM, *columns.GONE, *_IDS}
"""Columns that are no feedback."""


def of_messages(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield the assistant's last turn, with everything before it as the prompt; the score is that of the row."""
    if reading.score:
        yield _last(row, reading.rating(row))
        return
    score = reading.feedback(row)
    response = _last(row, score)
    _compare_turns(row, score)
    yield response


def of_scored_messages(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield the assistant's last turn, with everything before it as the prompt, and the row's number."""
    yield _last(row, reading.rating(row))


def of_satisfaction(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield the assistant's last turn with a level of satisfaction from 1 to 4, which is in `label`."""
    score = reading.number(row, reading.score or "label")
    if not (reading.score or reading.accept or math.isnan(score) or score in (1, 2, 3, 4)):
        raise row.error(f"expected 1, 2, 3 or 4 in column label, found {short(row.values['label'])}")
    reading.pass_over({name: row.values.get(name) for name in SCORES})
    yield _last(row, score)


def of_lmsys(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield every turn of the assistant in `conversation`, with its history as the prompt.

    The score is −1 where the turn's own moderation is flagged and +1 where it is not; a column that is named holds one
    number a conversation, which all its turns get, or one a message. Whether names were redacted says nothing of a
    response: it never touches the score. A turn that cannot be stored costs its own response and those after it.
    """
    messages = messages_of(row, "conversation")
    if reading.score:
        scores = _numbers(row, reading, len(messages))
    else:
        if other := first_filled(row.values, SCORES) or _first_rated(messages):
            raise row.error(f"{other} and openai_moderation both say what the answers are worth: leave one of them out")
        scores = _moderated(row, reading, len(messages))
    yield from _turns(row, messages, scores)


def of_turns(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield every turn of the assistant with the feedback that the turn itself holds."""
    messages = messages_of(row, row.first(CHATS))
    if rated := first_filled(row.values, SCORES):
        raise row.error(f"{rated} and feedback on turns both say what the answers are worth: leave one of them out")
    yield from _turns(row, messages, [_on_turn(row, reading, message) for message in messages])


def of_unlabelled(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield every turn of the assistant, unlabelled."""
    messages = messages_of(row, row.first(CHATS))
    reading.report.labels["no feedback"] = "unlabelled"
    yield from _turns(row, messages, [math.nan] * len(messages))


def _compare_turns(row: Row, score: float) -> None:
    """Raise `UserError` where feedback on a turn contradicts the row's score, or is not on the last turn."""
    *before, last = row.value(row.first(CHATS))
    if key := _rated_by(last):
        if WORDS.get(word_of(inside(last[key])), score) == -score:
            raise row.error(f"{key} of the last turn and the row's own label contradict each other: leave one out")
    elif key := _first_rated(before):
        raise row.error(f"{key} is on an earlier turn, and the row's own label on the last one: leave one of them out")


def _last(row: Row, score: float) -> Response:
    name = row.first(CHATS)
    history, reply = conversation(row, name)
    known = _about(row, row.value(name)[-1], is_last=True)
    return Response(with_system(row, after_history(row, history)), reply, score, **known)


def _about(row: Row, turn: Mapping[str, Any], *, is_last: bool) -> dict[str, Any]:
    """Return the row's metadata, and whether this turn was cut off; the row's own mark is about its last turn."""
    known = about(row)
    return known | {"is_cut_off": is_cut_off(turn) or (is_last and known["is_cut_off"])}


def _turns(row: Row, messages: Any, scores: list[float]) -> Iterator[Response | Drop]:
    name = row.first(CHATS)
    history: list[Message] = []
    broken: list[Drop] = []
    answers = 0
    for value, score in zip(messages, scores, strict=True):
        if is_blank_system(value):
            continue
        said = caught(turn, row, value, name)
        is_answer = role_of(value) == "assistant"
        answers += is_answer
        if isinstance(said, Drop):
            broken.append(said)
        if broken or isinstance(said, Drop):
            if is_answer:
                yield broken[0]
            continue
        if is_answer:
            wrong = unanswerable(history, name)
            if is_weightless(value):
                wrong = Drop(f"{name} has a turn of weight 0, which is not to be learned")
            known = _about(row, value, is_last=value is messages[-1])
            yield wrong or Response(with_system(row, tuple(history)), said.content, score, **known)
        history.append(said)
    if not answers:
        raise Drop(f"{name} has no assistant's turn")


def _moderated(row: Row, reading: Reading, count: int) -> list[float]:
    """Return the messages' scores by their own moderation; NaN where there is none for each of them."""
    found = row.listed("openai_moderation") if filled(row.values.get("openai_moderation")) else None
    if found is None or len(found) != count:
        reading.report.labels["no moderation"] = "unlabelled"
        return [math.nan] * count
    flags = [moderation.get("flagged") if isinstance(moderation, Mapping) else None for moderation in found]
    if wrong := [flag for flag in flags if not (flag is None or isinstance(flag, bool))]:
        raise row.error(f"expected true or false as flagged in column openai_moderation, found {short(wrong[0])}")
    reading.report.labels |= {"not flagged": "accept", "flagged": "reject"}
    return [math.nan if flag is None else -1.0 if flag else 1.0 for flag in flags]


def _numbers(row: Row, reading: Reading, count: int) -> list[float]:
    """Return the messages' scores of a column: one number for all of them, or one a message."""
    name = str(reading.score)
    value: Any = row.values.get(name)
    if not is_list(value):
        return [reading.number(row, name)] * count
    if len(value) != count:
        raise row.error(f"expected a number a message in column {name}, found {len(value)} for {count} messages")
    return [reading.number(row._replace(values={**row.values, name: number}), name) for number in value]


def _rated_by(message: Any) -> str | None:
    """Return the key of a turn that holds feedback on it."""
    return first_filled(message, _ON_TURNS) if isinstance(message, Mapping) else None


def _first_rated(messages: Iterable[Any]) -> str | None:
    """Return the key of feedback on the first turn that holds some."""
    return next(filter(None, map(_rated_by, messages)), None)


def _on_turn(row: Row, reading: Reading, message: Any) -> float:
    if (key := _rated_by(message)) is None:
        return math.nan
    reading.used.add(f"{row.first(CHATS)}.{key}")
    if role_of(message) != "assistant":
        raise row.error(f"{key} is on a turn of role {short(message.get('role', message.get('from')))}: whose is it?")
    return reading.label(Row(message, row.place), key)


def _rates_turns(row: Row) -> bool:
    messages = row.value(row.first(CHATS))
    mappings = [message for message in messages if isinstance(message, Mapping)] if is_list(messages) else []
    return any(key in message for message in mappings for key in _ON_TURNS) and not row.find(LABELS)


def _rates_nothing(row: Row) -> bool:
    others = [name for name, value in row.values.items() if filled(value) and name not in {*_BESIDE, *CHATS}]
    return all(map(is_about_row, others)) and is_list(row.value(row.first(CHATS)))


_CHAT = [{"role": "user", "content": "Name a prime."}, {"role": "assistant", "content": "Seven."}]
LMSYS = Form(
    name="LMSYS-Chat-1M conversations",
    space="lmsys",
    columns=("conversation",),
    read=of_lmsys,
    example={"conversation": _CHAT, "openai_moderation": [{"flagged": False}, {"flagged": False}]},
    meaning="each turn of the assistant, with its history as the prompt; its own moderation: flagged is reject",
    card="lmsys/lmsys-chat-1m, allenai/WildChat-1M",
    feedback="openai_moderation",
)
SATISFACTION = Form(
    name="WildFB",
    space="wildfb",
    columns=("history", "text", "messages", "user_feedback", "label"),
    read=of_satisfaction,
    example={"history": [], "text": "…", "messages": _CHAT, "user_feedback": "Thanks!", "label": 4},
    meaning="the assistant's last turn, after `history`; 3, 4: accept; 1, 2: reject",
    card="THU-KEG/WildFB",
    scored=True,
    threshold="2.5",
    also=HISTORY,
)
ON_TURNS = Form(
    name="conversations with feedback on turns",
    space="thumbs",
    columns=("|".join(CHATS),),
    read=of_turns,
    example={"messages": [_CHAT[0], {**_CHAT[1], "feedback": {"rating": "thumbsUp"}}]},
    meaning="each turn of the assistant; its own `feedback`, `thumbs`, `rating`, …, as a label",
    card="logs of chat front ends",
    takes_score=False,
    also=SYSTEM,
    test=_rates_turns,
)
THUMBS_LOG = Form(
    name="messages with feedback",
    space="thumbs",
    columns=("|".join(CHATS),),
    read=of_messages,
    example={"messages": _CHAT, "thumbs": "up"},
    meaning="the assistant's last turn; its label as of a TRL unpaired row",
    card="ms-swift; LLaMA-Factory's `kto_tag`",
    feedback="|".join(LABELS),
    also=(*SYSTEM, *HISTORY),
)
SCORED_CHATS = replace(
    THUMBS_LOG,
    name="conversations with a score",
    space="scored",
    read=of_scored_messages,
    example={"messages": _CHAT, "rating": 4},
    meaning="the assistant's last turn; the number",
    card="logs of chat front ends",
    feedback="|".join(SCORES),
    scored=True,
)
UNRATED = Form(
    name="conversations without feedback",
    space="chats",
    columns=("|".join(CHATS),),
    read=of_unlabelled,
    example={"conversations": [{"from": "human", "value": "Name a prime."}, {"from": "gpt", "value": "Seven."}]},
    meaning="each turn of the assistant, unlabelled; `--label reward` scores it",
    card="ShareGPT; nothing but ids, a title and the like may be beside them",
    takes_score=False,
    also=SYSTEM,
    test=_rates_nothing,
)
