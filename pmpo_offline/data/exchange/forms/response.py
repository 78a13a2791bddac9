"""What readers of text pass on: rows as they stand in a file, and the responses that are made of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pmpo_offline.runtime.errors import UserError


class Message(NamedTuple):
    """One turn of a conversation."""

    role: str
    """system, user or assistant."""
    content: str


Prompt = str | tuple[Message, ...]
"""Text, taken as it is, or the turns of a conversation, which a template renders."""


class Response(NamedTuple):
    """A completion of a prompt, with its score."""

    prompt: Prompt
    completion: str
    score: float = math.nan
    """+1 and −1 where the source says accept and reject; NaN where it says nothing."""
    source: str | None = None
    """Who wrote it, where the source tells."""
    language: str | None = None
    """None where the source never tells, empty where it does not tell here."""
    redacted: bool = False
    stored: tuple[int, int, str] | None = None
    """`prompt_id`, `response_id` and `split`, where the source is a dataset of this package."""


class Drop(NamedTuple):
    """Something that cannot become a response, and why."""

    reason: str
    responses: int = 1


class Row(NamedTuple):
    """One record of a file."""

    values: Mapping[str, Any]
    place: str
    """Where it stands, for messages: "train.jsonl, line 7"."""

    def error(self, what: str) -> UserError:
        """Return the error that says where and what."""
        return UserError(f"{self.place}: {what}")

    def number(self, name: str) -> float:
        """Return a finite number, NaN for null and for empty text; `UserError` for anything else."""
        value = self.values.get(name)
        if value is None or value == "":
            return math.nan
        try:
            number = float(value) if isinstance(value, (int, float, str)) else math.inf
        except (ValueError, OverflowError):
            number = math.inf
        if math.isnan(number):
            return math.nan
        if math.isinf(number) or abs(number) > _LARGEST:
            raise self.error(f"{name} is {_short(value)}, where a number is due (null where there is none)")
        return number

    def text(self, name: str) -> str | Drop:
        """Return a text that is not blank, or why there is none; `UserError` for what is no text."""
        return self.checked(self.values.get(name), name)

    def checked(self, value: Any, what: str) -> str | Drop:
        """Return a value that must be a text, or why it cannot be kept; `UserError` for what is no text."""
        if value is None:
            return Drop(f"{what} is null")
        if not isinstance(value, str):
            raise self.error(f"{what} holds {_short(value)} where a text is due")
        return blemish(value, what) or value


def blemish(text: str, what: str) -> Drop | None:
    """Return why a text cannot be stored, None for a sound one."""
    if not text or text.isspace():
        return Drop(f"{what} is empty")
    if "\0" in text:  # HDF5 ends a string there
        return Drop(f"{what} holds a NUL character")
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        return Drop(f"{what} is no valid Unicode")
    return None


def turns(row: Row, value: Sequence[Any], what: str) -> tuple[Message, ...] | Drop:
    """Return a list of {role, content} as messages, or why it cannot be kept; `UserError` where it is no such list."""
    found = []
    for each in value:
        if not isinstance(each, Mapping) or "role" not in each or "content" not in each:
            raise row.error(f"{what} holds {_short(each)} where a message with role and content is due")
        role = _ROLES.get(str(each["role"]).lower())
        if role is None:
            return Drop(f"{what} has a turn of role {_short(each['role'])}")
        content = row.checked(each["content"], f"{what}'s content")
        if isinstance(content, Drop):
            return content
        found.append(Message(role, content))
    if not found:
        return Drop(f"{what} is empty")
    return tuple(found)


def conversation(row: Row, value: Any, what: str) -> tuple[Message, ...] | Drop:
    """Return the turns of a value that must be a conversation, or why it cannot be kept; `UserError` if it is none."""
    if value is None:
        return Drop(f"{what} is null")
    if not is_conversation(value):
        raise row.error(f"{what} holds {_short(value)} where a list of messages with role and content is due")
    return turns(row, value, what)


def is_conversation(value: Any) -> bool:
    """Return whether a value is a list, as conversations are."""
    return isinstance(value, Sequence) and not isinstance(value, str)


@dataclass
class Reading:
    """What is asked of a reader, and what it met on the way."""

    score: str | None = None
    """The column of scores; None: what the form says itself."""
    transcripts: bool = True
    """Whether conversations become `Human:/Assistant:` transcripts, so that such texts need not be taken apart."""
    meant: dict[str, str] = field(default_factory=dict)
    """The labels that were met, and what they were taken for."""
    conversational: bool | None = None
    """Whether the texts are conversations; None before the first row."""
    unused: bool = False
    """Whether there are scores beside the labels, in a column `score`, that nobody asked for."""

    def pass_over(self, row: Row, column: str) -> None:
        """Note a score that is not taken, where it says more than its label."""
        self.unused |= self.score is None and row.values.get(column) not in (None, "", 1, 0, -1)

    def steady(self, row: Row, conversational: bool) -> None:
        """Raise `UserError` where plain texts and conversations are mixed."""
        if self.conversational is None:
            self.conversational = conversational
        if self.conversational != conversational:
            kinds = {True: "a conversation", False: "plain text"}
            raise row.error(
                f"{kinds[conversational]} where the rows before hold {kinds[self.conversational]}: "
                "import files of one form at a time"
            )


_ROLES = {"system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant"}
_LARGEST = 3.4e38  # of float32


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else f"{text[:37]}…"
