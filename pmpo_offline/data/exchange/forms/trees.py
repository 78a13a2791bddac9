"""Messages that name the one they reply to: every path from a prompt to an assistant's reply is a response."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from pmpo_offline.data.exchange.forms.cells import joined, mapping_in, short
from pmpo_offline.data.exchange.forms.columns import WORDS, is_set, word_of
from pmpo_offline.data.exchange.forms.conversation import conversation
from pmpo_offline.data.exchange.forms.form import Form
from pmpo_offline.data.exchange.forms.reading import Reading
from pmpo_offline.data.exchange.forms.row import Drop, Prompt, Response, Row, about


def paths(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield a row for each assistant's message: its columns, and all turns from the prompt to it as `messages`.

    A parent may come after its replies. Trees may also be nested, a message holding its `replies`. What follows a
    deleted message is deleted too. Raises `UserError` for two messages of one id.
    """
    found = [message for row in rows for message in _flattened(row)]
    by_id: dict[Any, Row] = {}
    for row in found:
        name = row.values.get("message_id")
        if bad := [key for key in ("message_id", "parent_id") if isinstance(row.values.get(key), list | dict)]:
            raise row.error(f"expected a text or a number as {bad[0]}, found {short(row.values[bad[0]])}")
        if name is not None and name in by_id and by_id[name].values.get("text") != row.values.get("text"):
            raise row.error(f"message_id {short(name)} is that of another message too: give every message its own")
        by_id[name] = row
    for row in found:
        if row.values.get("role") != "assistant":
            continue
        path = [row]
        while path and (parent := path[-1].values.get("parent_id")) is not None:
            above = by_id.get(parent)
            path = [] if above is None or above in path else [*path, above]
        turns = [
            {"role": said.values.get("role"), "content": said.values.get("text"), "files": said.values.get("files")}
            for said in reversed(path)
        ]
        deleted = any(is_set(said.values.get("deleted")) for said in path)
        yield row._replace(values={**row.values, "messages": turns, "deleted": deleted})


def front_end(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield the paths of LibreChat's conversations, whose messages say what they answer and whose they are."""

    def messages() -> Iterator[Row]:
        for row in rows:
            pending = row.objects("messages")[::-1]
            while pending:
                reply = pending.pop()
                said = reply.values
                if not {"messageId", "isCreatedByUser"} <= said.keys():
                    raise row.error("expected messages with messageId and isCreatedByUser")
                parent = said.get("parentMessageId")
                known = {
                    "message_id": said["messageId"],
                    "parent_id": None if parent in (None, "", _ROOT) else parent,
                    "role": "user" if is_set(said["isCreatedByUser"]) else "assistant",
                    "text": said.get("text") or joined(said.get("content"))[0],
                    "model": said.get("model"),
                    "feedback": said.get("feedback"),
                    "files": said.get("files") or said.get("attachments"),
                    "finish_reason": "length" if said.get("unfinished") else said.get("finish_reason"),
                }
                yield row._replace(values=known)
                pending += reply.objects("children")[::-1]

    yield from paths(messages())


def of_rated_path(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield the reply of a path with the thumb that it got, unlabelled without one."""
    history, reply = _said(row)
    yield Response(history, reply, reading.label(row, "feedback"), **about(row))


def of_path(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield the reply of a path: the best of its siblings is accepted, the others are rejected."""
    if row.values.get("deleted"):
        raise Drop("the message was deleted, or one that it follows")
    history, reply = _said(row)
    yield Response(history, reply, _score(row, reading), **about(row))


def _said(row: Row) -> tuple[Prompt, str]:
    if not row.values["messages"]:
        raise Drop("the message that it replies to is not in the file")
    return conversation(row, "messages")


def _score(row: Row, reading: Reading) -> float:
    if reading.score:
        named = _labels(row.values.get("labels"))
        if reading.score not in row.values and reading.score in named:
            return reading.number(row._replace(values={**row.values, **named}), reading.score)
        if reading.score not in row.values and named:
            raise row.error(f"there is no column or label {reading.score}: labels are {', '.join(named)}")
        return reading.number(row, reading.score)
    if WORDS.get(word_of(row.values.get("review_result"))) == -1:
        reading.report.labels["review_result false"] = "reject"
        return -1.0
    rank = row.number("rank") if "rank" in row.values else math.nan
    reading.report.labels |= {"rank 0": "accept", "other ranks": "reject", "no rank": "unlabelled"}
    return rank if math.isnan(rank) else 1.0 if rank == 0 else -1.0


def _labels(value: Any) -> Mapping[str, Any]:
    """Return OASST's labels by name: lists of names and values, or an object for each name."""
    if not isinstance(value, Mapping):
        return {}
    names, values = value.get("name"), value.get("value")
    if names is not None and values is not None:
        return dict(zip(names, values, strict=False))
    return {name: each["value"] for name, each in value.items() if isinstance(each, Mapping) and "value" in each}


def _flattened(row: Row) -> Iterator[Row]:
    first = row.object("prompt") if "prompt" in row.values else row
    pending = [(first, first.values.get("parent_id"))]
    while pending:
        said, parent = pending.pop()
        own = {name: value for name, value in said.values.items() if name != "replies"}
        yield row._replace(values={**own, "parent_id": parent})
        pending += [(reply, said.values.get("message_id")) for reply in said.objects("replies")[::-1]]


def _is_front_end(row: Row) -> bool:
    return any(isinstance(said, Mapping) and "isCreatedByUser" in said for said in row.items("messages"))


_ROOT = "00000000-0000-0000-0000-000000000000"
"""What LibreChat's first messages answer."""
_EXAMPLE = (
    {"message_id": "a", "parent_id": None, "role": "prompter", "text": "Name a prime.", "lang": "en", "rank": None},
    {"message_id": "b", "parent_id": "a", "role": "assistant", "text": "Seven.", "lang": "en", "rank": 0},
    {"message_id": "c", "parent_id": "a", "role": "assistant", "text": "Nine.", "lang": "en", "rank": 1},
)
_MEANING = (
    "each reply of the assistant, after all that it follows; rank 0 of its siblings: accept, others: reject, no rank: "
    "unlabelled; `review_result` false: reject; `--score quality` takes a number of `labels`"
)
MESSAGES = Form(
    name="OASST messages",
    space="oasst",
    columns=("message_id", "parent_id", "role", "text"),
    read=of_path,
    example=_EXAMPLE,
    meaning=_MEANING,
    card="OpenAssistant/oasst1 and oasst2",
    score_columns=(),
    join=paths,
    also=("messages", "rank", "labels", "review_result", "deleted"),
)
TREES = replace(
    MESSAGES,
    name="OASST trees",
    columns=("message_tree_id", "prompt"),
    example={
        "message_tree_id": "a",
        "prompt": {
            **{"message_id": "a", "role": "prompter", "text": "Name a prime."},
            "replies": [{"message_id": "b", "role": "assistant", "text": "Seven.", "rank": 0, "replies": []}],
        },
    },
    meaning="as of OASST messages",
    card="OpenAssistant/oasst2, *_trees.jsonl.gz",
    test=lambda row: isinstance(mapping_in(row.values["prompt"]), Mapping),
)
LIBRECHAT = Form(
    name="LibreChat conversations",
    space="librechat",
    columns=("conversationId", "messages"),
    read=of_rated_path,
    example={
        "conversationId": "c",
        "messages": [
            {"messageId": "a", "parentMessageId": _ROOT, "isCreatedByUser": True, "text": "Name a prime."},
            {
                **{"messageId": "b", "parentMessageId": "a", "isCreatedByUser": False, "text": "Seven."},
                "feedback": {"rating": "thumbsUp"},
            },
            {
                **{"messageId": "c", "parentMessageId": "a", "isCreatedByUser": False, "text": "Nine."},
                "feedback": {"rating": "thumbsDown", "tag": "inaccurate"},
            },
        ],
    },
    meaning="each reply of the assistant, after all that it follows; its `feedback.rating`; none: unlabelled",
    card="JSON exports of LibreChat",
    takes_score=False,
    test=_is_front_end,
    join=front_end,
    also=("messages", "feedback"),
)
