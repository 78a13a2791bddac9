"""Forms of conversations: thumbs logs (`messages` with a label or a rating), and LMSYS-Chat-1M's `conversation`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pmpo_offline.data.exchange.forms import rows
from pmpo_offline.data.exchange.forms.form import Form
from pmpo_offline.data.exchange.forms.rows import Drop, Message, Reading, Response, Row


def of_messages(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield the assistant's last turn of `messages`, with everything before it as the prompt.

    The score is a thumb (a column of `THUMBS`), or the column that is named.
    """
    score = row.number(reading.score) if reading.score else reading.feedback(row, thumbs=True)
    found = rows.split_last(rows.conversation(row, "messages"), "messages")
    if isinstance(found, Drop):
        yield found
        return
    history = rows.framed(row, found[0], found[0])
    yield history if isinstance(history, Drop) else Response(history, found[1], score, **rows.about(row))


def of_lmsys(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield every turn of the assistant in `conversation`, with its history as the prompt.

    The score is −1 where the turn's own moderation is flagged and +1 where it is not; a column that is named holds one
    number a conversation, which all its turns get, or one a message. Whether names were redacted says nothing of a
    response: it never touches the score. A turn that cannot be stored costs its own response and those after it.
    """
    messages = row.value("conversation")
    if not rows.filled(messages):
        yield Drop(f"conversation is {'null' if messages is None else 'empty'}")
        return
    if not rows.is_list(messages):
        raise row.error(f"expected a list of messages in column conversation, found {rows.short(messages)}")
    scores = _given(row, reading.score, len(messages)) if reading.score else _moderated(row, reading, len(messages))
    history: list[Message] = []
    broken: Drop | None = None
    answered = False
    for value, score in zip(messages, scores, strict=True):
        said = rows.turn(row, value, "conversation")
        is_answer = str(value["role"]).lower() == "assistant"
        answered |= is_answer
        if isinstance(said, Drop):
            broken = broken or said
        if is_answer:
            wrong = broken or rows.unanswerable(history, "conversation")
            yield wrong or Response(tuple(history), said.content, score, **rows.about(row))  # type: ignore[union-attr]
        if isinstance(said, Message):
            history.append(said)
    if not answered:
        yield Drop("conversation has no assistant's turn")


def _moderated(row: Row, reading: Reading, count: int) -> list[float]:
    """Return the messages' scores by their own moderation; NaN where there is none for each of them."""
    if beside := [name for name in rows.THUMBS if rows.filled(row.values.get(name))]:
        raise row.error(
            f"columns {beside[0]} and openai_moderation both say which turns are accepted: leave one of them out, or "
            "name the column of scores with --score"
        )
    found = row.listed("openai_moderation") if rows.filled(row.values.get("openai_moderation")) else None
    if found is None or len(found) != count:
        reading.meant["no moderation"] = "unlabelled"
        return [math.nan] * count
    flags = [each.get("flagged") if isinstance(each, Mapping) else None for each in found]
    if wrong := [flag for flag in flags if not (flag is None or isinstance(flag, bool))]:
        raise row.error(f"expected true or false as flagged in column openai_moderation, found {rows.short(wrong[0])}")
    reading.meant |= {"not flagged": "accept", "flagged": "reject"}
    return [math.nan if flag is None else -1.0 if flag else 1.0 for flag in flags]


def _given(row: Row, name: str, count: int) -> list[float]:
    value: Any = row.values.get(name)
    if not rows.is_list(value):
        return [row.number(name)] * count
    if len(value) != count:
        raise row.error(f"expected a number a message in column {name}, found {len(value)} for {count} messages")
    return [Row({name: each}, row.place).number(name) for each in value]


LMSYS = Form(
    name="LMSYS-Chat-1M conversations",
    space="lmsys",
    columns=("conversation",),
    read=of_lmsys,
    example={
        "conversation": [{"role": "user", "content": "Name a prime."}, {"role": "assistant", "content": "Seven."}],
        "openai_moderation": [{"flagged": False}, {"flagged": False}],
    },
    meaning="each turn of the assistant, with its history as the prompt; its own moderation: flagged is reject",
    feedback="openai_moderation",
)
THUMBS_LOG = Form(
    name="messages with feedback",
    space="thumbs",
    columns=("messages",),
    read=of_messages,
    example={
        "messages": [{"role": "user", "content": "Name a prime."}, {"role": "assistant", "content": "Seven."}],
        "thumbs": "up",
    },
    meaning="the assistant's last turn; true, 1, up: accept; false, 0, -1, down: reject; not 0 and -1 in one column",
    feedback="|".join(rows.THUMBS),
    also=rows.SYSTEM,
)
