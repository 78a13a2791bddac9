"""Conversations: thumbs logs (`messages` with a label or a rating), and LMSYS-Chat-1M's `conversation`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pmpo_offline.data.exchange.forms.labels import thumb
from pmpo_offline.data.exchange.forms.response import (
    Drop,
    Message,
    Reading,
    Response,
    Row,
    blemish,
    conversation,
    is_conversation,
)

THUMBS = ("label", "thumbs", "feedback", "vote")
"""What a column of thumbs may be called."""


def split(messages: tuple[Message, ...] | Drop, what: str) -> tuple[tuple[Message, ...], str] | Drop:
    """Return the history and the assistant's last turn, or why there is none."""
    if isinstance(messages, Drop):
        return messages
    *history, last = messages
    if last.role != "assistant":
        return Drop(f"{what} does not end with the assistant's turn")
    if wrong := unanswerable(tuple(history), what):
        return wrong
    return tuple(history), last.content


def unanswerable(history: tuple[Message, ...], what: str) -> Drop | None:
    """Return why a history is no prompt, None where the next turn is the assistant's."""
    if not history or history[-1].role == "assistant":
        return Drop(f"{what} has an assistant's turn that answers nobody")
    return None


def of_messages(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield the assistant's last turn of `messages`, with everything before it as the prompt.

    The score is a thumb (a column of `THUMBS`), or the column asked for.
    """
    name = reading.score or next(name for name in THUMBS if name in row.values)
    score = row.number(name) if reading.score else thumb(row, name, reading)
    found = split(conversation(row, row.values["messages"], "messages"), "messages")
    yield found if isinstance(found, Drop) else Response(*found, score, **about(row))


def of_lmsys(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield every turn of the assistant in `conversation`, with its history as the prompt.

    The score is −1 where the turn's own moderation is flagged and +1 where it is not; a column asked for holds one
    number a conversation, which all its turns get, or one a message. Whether names were redacted says nothing of a
    response: it never touches the score.
    """
    messages = conversation(row, row.values["conversation"], "conversation")
    if isinstance(messages, Drop):
        yield messages
        return
    scores = _given(row, reading.score, len(messages)) if reading.score else _moderated(row, reading, len(messages))
    answered = False
    for place, (message, score) in enumerate(zip(messages, scores, strict=True)):
        if message.role == "assistant":
            answered = True
            history = messages[:place]
            yield unanswerable(history, "conversation") or Response(history, message.content, score, **about(row))
    if not answered:
        yield Drop("conversation has no assistant's turn")


def about(row: Row) -> dict[str, Any]:
    """Return what a row says of who wrote the response, in which language, and whether names were redacted."""
    values = row.values
    named = {name: _word(values[name]) for name in ("model", "source", "language") if name in values}
    return {
        "source": named.get("model") or named.get("source") or None,
        "language": named.get("language"),
        "redacted": str(values.get("redacted")).lower() in ("true", "1"),
    }


def _word(value: Any) -> str:
    """Return a text, the empty one for whatever is none or cannot be stored."""
    return value if isinstance(value, str) and not blemish(value, "") else ""


def _moderated(row: Row, reading: Reading, count: int) -> list[float]:
    """Return the messages' scores by their own moderation; NaN where there is none for each of them."""
    found: Any = row.values.get("openai_moderation")
    if not is_conversation(found) or len(found) != count:
        reading.meant["no moderation"] = "unlabelled"
        return [math.nan] * count
    flags = [each.get("flagged") if isinstance(each, Mapping) else None for each in found]
    if wrong := [flag for flag in flags if not (flag is None or isinstance(flag, bool))]:
        raise row.error(f"openai_moderation is flagged {str(wrong[0])[:20]!r}, where true or false is due")
    reading.meant |= {"not flagged": "accept", "flagged": "reject"}
    return [math.nan if flag is None else -1.0 if flag else 1.0 for flag in flags]


def _given(row: Row, name: str, count: int) -> list[float]:
    value: Any = row.values.get(name)
    if not is_conversation(value):
        return [row.number(name)] * count
    if len(value) != count:
        raise row.error(f"{name} holds {len(value)} numbers for {count} messages")
    return [Row({name: each}, row.place).number(name) for each in value]
