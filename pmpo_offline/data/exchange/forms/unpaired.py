"""Forms whose responses each have a label or a score: one a row, a list of them a row, or a conversation's turns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pmpo_offline.data.exchange.forms import rows
from pmpo_offline.data.exchange.forms.form import Form
from pmpo_offline.data.exchange.forms.rows import Drop, Message, Reading, Response, Row

_PROMPT, _COMPLETION = "|".join(rows.PROMPTS), "|".join(rows.COMPLETIONS)


def of_unpaired(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield the response of a row with a label: `prompt, completion, label`, or a thumb of another name."""
    reading.pass_over({name: row.values.get(name) for name in rows.SCORES})
    yield _response(row, reading, reading.feedback(row, thumbs=False))


def of_scored(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield the response of a row with a score."""
    yield _response(row, reading, row.number(reading.score or row.first(rows.SCORES)))


def of_own(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield the response of a row that an export of this package wrote, at its own place."""
    score = row.number(reading.score) if reading.score else reading.label(row, "label")
    reading.pass_over({"score": row.values.get("score")})
    yield _response(row, reading, score)._replace(stored=rows.stored(row, "response_id"))


def of_several(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield each of `completions: [{response, overall_score, …}]` as a response to the row's prompt."""
    several = row.listed("completions")
    if several is None:
        raise Drop("completions is null")
    try:
        prompt = rows.prompt_of(row)
    except Drop as drop:
        yield Drop(drop.reason, len(several))
        return
    reading.steady(row, rows.is_list(prompt))
    for number, content in enumerate(several, 1):
        if not isinstance(content, Mapping):
            raise row.error("expected objects with a response and its score in column completions")
        one = Row(content, f"{row.place}, completion {number}")
        if not set(rows.COMPLETIONS) & content.keys():
            raise one.error(f"lacks response: it holds {', '.join(sorted(content)[:12])}")
        score = reading.score or reading.list_score or next((n for n in rows.LIST_SCORES if n in content), None)
        if score is None or score not in content:
            raise one.error(f"lacks {score or ' or '.join(rows.LIST_SCORES)}: name the column of scores with --score")
        reading.list_score = score
        text = rows.caught(rows.completion_of, one, one.value(one.first(rows.COMPLETIONS)), "response")
        known = rows.about(row) | {"source": rows.about(one)["source"]}
        yield text if isinstance(text, Drop) else Response(prompt, text, one.number(score), **known)


def of_messages(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield the assistant's last turn of `messages`, with everything before it as the prompt.

    The score is a thumb (a column of `THUMBS`), or the column that is named.
    """
    score = row.number(reading.score) if reading.score else reading.feedback(row, thumbs=True)
    reading.pass_over({name: row.values.get(name) for name in rows.SCORES})
    history, reply = rows.conversation(row, "messages")
    yield Response(rows.framed(row, history), reply, score, **rows.about(row))


def of_lmsys(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield every turn of the assistant in `conversation`, with its history as the prompt.

    The score is −1 where the turn's own moderation is flagged and +1 where it is not; a column that is named holds one
    number a conversation, which all its turns get, or one a message. Whether names were redacted says nothing of a
    response: it never touches the score. A turn that cannot be stored costs its own response and those after it.
    """
    messages = row.value("conversation")
    if not rows.filled(messages):
        raise Drop(f"conversation is {'null' if messages is None else 'empty'}")
    if not rows.is_list(messages):
        raise row.error(f"expected a list of messages in column conversation, found {rows.short(messages)}")
    scores = _numbers(row, reading.score, len(messages)) if reading.score else _moderated(row, reading, len(messages))
    history: list[Message] = []
    broken: list[Drop] = []
    answers = 0
    for value, score in zip(messages, scores, strict=True):
        said = rows.caught(rows.turn, row, value, "conversation")
        is_answer = rows.role_of(value) == "assistant"
        answers += is_answer
        if isinstance(said, Drop):
            broken.append(said)
        if broken or isinstance(said, Drop):
            if is_answer:
                yield broken[0]
            continue
        if is_answer:
            wrong = rows.unanswerable(history, "conversation")
            yield wrong or Response(tuple(history), said.content, score, **rows.about(row))
        history.append(said)
    if not answers:
        raise Drop("conversation has no assistant's turn")


def _moderated(row: Row, reading: Reading, count: int) -> list[float]:
    """Return the messages' scores by their own moderation; NaN where there is none for each of them."""
    found = row.listed("openai_moderation") if rows.filled(row.values.get("openai_moderation")) else None
    if found is None or len(found) != count:
        reading.meant["no moderation"] = "unlabelled"
        return [math.nan] * count
    flags = [moderation.get("flagged") if isinstance(moderation, Mapping) else None for moderation in found]
    if wrong := [flag for flag in flags if not (flag is None or isinstance(flag, bool))]:
        raise row.error(f"expected true or false as flagged in column openai_moderation, found {rows.short(wrong[0])}")
    reading.meant |= {"not flagged": "accept", "flagged": "reject"}
    return [math.nan if flag is None else -1.0 if flag else 1.0 for flag in flags]


def _numbers(row: Row, name: str, count: int) -> list[float]:
    """Return the messages' scores of a column: one number for all of them, or one a message."""
    value: Any = row.values.get(name)
    if not rows.is_list(value):
        return [row.number(name)] * count
    if len(value) != count:
        raise row.error(f"expected a number a message in column {name}, found {len(value)} for {count} messages")
    return [Row({name: number}, row.place).number(name) for number in value]


def _response(row: Row, reading: Reading, score: float) -> Response:
    completions = {"completion": row.value(row.first(rows.COMPLETIONS))}
    prompt, texts = rows.answered(row, reading, rows.prompt_of(row), completions)
    if isinstance(text := texts["completion"], Drop):
        raise text
    return Response(prompt, text, score, **rows.about(row))


SEVERAL = Form(
    name="several scored responses a prompt",
    space="scored",
    columns=(_PROMPT, "completions"),
    read=of_several,
    example={
        "instruction": "Name a prime.",
        "completions": [{"response": "Seven.", "overall_score": 9.0}, {"response": "Nine.", "overall_score": 1.5}],
    },
    meaning="each completion; its score is `overall_score`, else `fine-grained_score`, `score` or `rating`",
    scored=True,
    score_columns=(),
)
OWN = Form(
    name="an export of pmpo-offline",
    space="pmpo",
    columns=("prompt", "completion", "label", "prompt_id", "response_id", "split"),
    read=of_own,
    example={
        **{"prompt": "Name a prime.", "completion": "Seven.", "score": 1.0, "label": True},
        **{"prompt_id": 0, "response_id": 2, "source": "tiny", "split": "test"},
    },
    meaning="a row, at its place; the label, or with `--score score` the number",
)
UNPAIRED = Form(
    name="TRL unpaired",
    space="trl",
    columns=(_PROMPT, _COMPLETION),
    read=of_unpaired,
    example={"prompt": "Name a prime.", "completion": "Seven.", "label": True},
    meaning="a row; true, 1: accept; false, 0: reject; null: unlabelled",
    feedback="|".join(rows.THUMBS),
    takes_score=False,
)
SCORED = Form(
    name="one scored response a row",
    space="scored",
    columns=(_PROMPT, _COMPLETION),
    read=of_scored,
    example={"prompt": "Name a prime.", "completion": "Seven.", "score": 4.5},
    meaning="a row; the number",
    feedback="|".join(rows.SCORES),
    scored=True,
)
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
