"""A record of a file, the texts and numbers in its columns, and its responses."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any, NamedTuple

from pmpo_offline.data.exchange.forms import cells
from pmpo_offline.data.exchange.forms.cells import blemish_of, is_list, short
from pmpo_offline.runtime.errors import UserError

ENDINGS = ("finish_reason", "stop_reason", "done_reason", "truncated", "is_truncated")
"""Columns that say why an answer ended."""
_CUT_OFF = {
    *("length", "max_tokens", "max_length", "max_output_tokens", "model_length", "content_filter"),
    *("truncated", "true", "1"),
}
"""Their values for an answer that was cut off."""
_LARGEST = 3.4e38  # of float32
_LISTED = 12
"""Names of columns that a message lists at most."""


class Drop(Exception):
    """Something that cannot become a response, and why: a form raises it for a whole row, or yields it."""

    def __init__(self, reason: str, responses: int = 1) -> None:
        super().__init__(reason)
        self.reason = reason
        self.responses = responses


class Row(NamedTuple):
    """One record of a file."""

    values: Mapping[str, Any]
    place: str
    """The file and the line or row, for messages: "train.jsonl, line 7"."""
    split: str | None = None
    """The split of the source that it is from, "train" or "test"; None where the source has none."""
    as_turns: bool = False
    """Whether a plain prompt is a turn, because other rows of the source have a system message or a history."""

    def error(self, what: str) -> UserError:
        """Return the error that names the row, and says `what`."""
        return UserError(f"{self.place}: {what}")

    def value(self, name: str) -> Any:
        """Return a column's value, a conversation as a list of turns, parts of a text as text, however written."""
        try:
            return cells.joined(cells.conversation_in(self.values.get(name)))[0]
        except ValueError:
            raise self._no_list(name) from None

    def listed(self, name: str) -> Sequence[Any] | None:
        """Return a column's list, also where a text holds it as JSON or a Python literal; None for null."""
        value = self.value(name)
        if isinstance(value, str):
            try:
                value = cells.conversation_in(cells.literal(value))
            except ValueError:
                raise self._no_list(name) from None
        if value is None:
            return None
        if not is_list(value):
            raise self.error(f"expected a list in column {name}, found {short(value)}")
        return tuple(value)

    def items(self, name: str) -> Sequence[Any]:
        """Return a column's list as `listed` does, empty for any other value."""
        with suppress(UserError):
            return self.listed(name) or ()
        return ()

    def object(self, name: str) -> Row:
        """Return a column's object, also as a literal, as columns of their own; `UserError` for any other value."""
        value = cells.mapping_in(self.values.get(name))
        if not isinstance(value, Mapping):
            raise self.error(f"expected an object in column {name}, found {short(value)}")
        return self._replace(values=value)

    def objects(self, name: str) -> list[Row]:
        """Return the objects in a column's list, none for null; `UserError` for any other value."""
        return [Row({name: item}, self.place, self.split).object(name) for item in self.listed(name) or ()]

    def _no_list(self, name: str) -> UserError:
        found = short(self.values.get(name))
        return self.error(f"expected a list as JSON or a Python literal in column {name}, found {found}")

    def number(self, name: str) -> float:
        """Return a finite number, NaN for null and for texts that say nothing; `UserError` for anything else."""
        value = self.values.get(name)
        if value is None:
            return math.nan
        if isinstance(value, str):
            word = value.strip().lower()
            value = math.nan if word in cells.NOTHING else {"true": 1, "false": 0}.get(word, value)
        number = math.inf
        with suppress(ValueError, OverflowError):
            if isinstance(value, str) and "_" not in value:  # as in Python's 1_000
                number = float(value.replace("−", "-"))
            elif isinstance(value, int | float | Decimal):
                number = float(value)
        if abs(number) > _LARGEST:
            comma = re.fullmatch(r"\s*([+-]?\d+),(\d+)\s*", value) if isinstance(value, str) else None
            hint = f"write {comma[1]}.{comma[2]} if that is meant" if comma else "leave it null if unknown"
            raise self.error(f"expected a number in column {name}, found {short(value)} ({hint})")
        return number

    def text(self, name: str) -> str:
        """Return a text that can be stored; raises `Drop` for null and blank ones, `UserError` for what is no text."""
        return self.checked(self.values.get(name), name)

    def checked(self, value: Any, what: str) -> str:
        """Return a value that must be a text that can be stored; raises as `text` does."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            raise Drop(f"{what} is null")
        if isinstance(value, (bytes, bytearray)):
            raise self.error(f"expected text in {what}, found bytes: decode the column and import again")
        if not isinstance(value, str):
            raise self.error(f"expected text in {what}, found {short(value)}")
        if blemish := blemish_of(value):
            raise Drop(f"{what} {blemish}")
        if cells.is_bytes(value):
            raise Drop(f"{what} is a Python literal of bytes, b'…': decode the column")
        return value

    def find(self, names: Iterable[str]) -> str | None:
        """Return the first of these columns that the row has, None if it has none."""
        return next((name for name in names if name in self.values), None)

    def first(self, names: Sequence[str]) -> str:
        """Return the first of these columns that the row has; `UserError` if it has none."""
        if (found := self.find(names)) is None:
            raise self.error(f"lacks a column {names[0]}: it holds {self.held}")
        return found

    def require(self, column: str) -> None:
        """Raise `UserError` for a column that the user named and that the row does not have."""
        if column not in self.values:
            raise self.error(f"there is no column {column}: it holds {self.held}")

    @property
    def held(self) -> str:
        """The names of the row's columns, for messages."""
        return ", ".join(list(self.values)[:_LISTED]) or "(none)"


class Message(NamedTuple):
    """One turn of a conversation."""

    role: str
    """system, user or assistant."""
    content: str


Prompt = str | tuple[Message, ...]
"""Text, taken as it is, or the turns of a conversation, which a template renders."""


class Stored(NamedTuple):
    """What a response was in the dataset of this package that its row was exported from."""

    prompt_id: int
    response_id: int
    split: str
    label: bool | None
    """None where the row does not tell."""
    score: float | None


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
    redacted: bool | None = None
    """Whether names were replaced; None where the source never tells."""
    split: str | None = None
    """"train" or "test", where the source has splits of its own."""
    stored: Stored | None = None
    """Where the source is a dataset of this package."""
    opening: str | None = None
    """What the split goes by where the prompt holds parts of answers."""
    is_cut_off: bool = False
    """Whether the source says that it was cut off before its end."""


def about(row: Row, *writers: str) -> dict[str, Any]:
    """Return the metadata of a row's responses, or of one: source, language, split, and what they lack.

    `writers` are columns that may name who wrote this one, before those that name who wrote all of the row's.
    """
    values = row.values
    named = {name: _name(row, name) for name in (*writers, "model", "source", "language", "lang") if name in values}
    return {
        "source": next((named[name] for name in (*writers, "model", "source") if named.get(name)), None),
        "language": named.get("language", named.get("lang")),
        "redacted": str(values["redacted"]).lower() in ("true", "1") if "redacted" in values else None,
        "split": row.split,
        "is_cut_off": is_cut_off(values),
    }


def is_cut_off(values: Mapping[str, Any]) -> bool:
    """Return whether columns, or the keys of a turn, say that an answer was cut off before its end."""
    return any(str(values[name]).strip().lower() in _CUT_OFF for name in ENDINGS if name in values)


def stored(row: Row, side: str = "") -> Stored | None:
    """Return what a response was in a dataset of this package, None where the row does not tell.

    `side` is "chosen" or "rejected", which the columns of a pair end in and their labels are.
    """
    values, end = row.values, f"_{side}" if side else ""
    split, names = values.get("split"), ("prompt_id", f"response_id{end}")
    if split not in ("train", "test") or not set(names) <= values.keys():
        return None
    score = values.get(f"score{end}")
    try:
        ids = [float(values[name]) for name in names]
        number = float(score) if isinstance(score, int | float) else None
    except (TypeError, ValueError, OverflowError):  # H4's prompt_id is a hash
        return None
    if not all(0 <= value < 2**31 and value.is_integer() for value in ids):
        return None
    label = side == "chosen" if side else values.get("label")
    return Stored(
        prompt_id=int(ids[0]),
        response_id=int(ids[1]),
        split=str(split),
        label=label if isinstance(label, bool) else None,
        score=number,
    )


def _name(row: Row, column: str) -> str:
    """Return a text, the empty one for what is none or cannot be stored; `UserError` for bytes."""
    value = row.values[column]
    if isinstance(value, bytes):
        row.checked(value, column)
    return value if isinstance(value, str) and not blemish_of(value) else ""
