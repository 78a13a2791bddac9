"""A record of a file, what its cells hold (texts, numbers, lists, literals, conversations), and its responses."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any, NamedTuple

from pmpo_offline.runtime.errors import UserError

TURNS = (("role", "content"), ("from", "value"))
"""Keys of a conversation's turn: as TRL and as ShareGPT call them."""
_CHAT = re.compile(
    r"""\s*"?(?:array\(\s*)?(\[\s*\{\s*\\?["'](role|content|from)\\?["']\s*:\s*\\?["']"""
    r"""|\[\s*\{(?=.*["']role\\?["']\s*:)(?=.*["']content\\?["']\s*:)"""
    r"""|\{\s*["']messages["']\s*:\s*\[\s*\{"""
    r"""|\[\s*\{(?=.*["']from\\?["']\s*:\s*\\?["'](?:human|gpt|system|user)\b)(?=.*["']value\\?["']\s*:)"""
    r"""|\{\s*["'](role["']\s*:.*["']content|content["']\s*:.*["']role"""
    r"""|from["']\s*:\s*["'](human|gpt|system)["'].*["']value)["']\s*:.*\}\s*$)""",
    re.DOTALL,
)
"""What a text begins with that is a conversation, or all of one turn."""
_PARTS = re.compile(r"""\s*\[\s*\{(?=.*["']type["']\s*:)(?=.*["']text["']\s*:).*\]\s*$""", re.DOTALL)
_ARRAY = re.compile(r"array\((.*?)(?:,\s*dtype=object)?\)\s*$", re.DOTALL)
_BYTES = re.compile(r"""b(["']).*\1\s*$""", re.DOTALL)
NOTHING = frozenset(("", "null", "none", "nan", "n/a", "na", "\\n"))
"""Texts for what is not known, in lower case: MySQL writes \\N."""
ENDINGS = ("finish_reason", "stop_reason", "done_reason", "truncated", "is_truncated")
"""Columns that say why an answer ended."""
_CUT_OFF = {
    *("length", "max_tokens", "max_length", "max_output_tokens", "model_length", "content_filter"),
    *("truncated", "true", "1"),
}
"""What they say of an answer that was cut off."""
_TEXTS = ("text", "input_text", "output_text")
"""Types of the parts of a content that are text."""
_LARGEST = 3.4e38  # of float32


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
    framed: bool = False
    """Whether a plain prompt is a turn, because other rows of the source have a system message or a history."""

    def error(self, what: str) -> UserError:
        """Return the error that names the row, and says `what`."""
        return UserError(f"{self.place}: {what}")

    def value(self, name: str) -> Any:
        """Return a column's value, a conversation as a list of turns, parts of a text as text, however written."""
        try:
            return joined(conversation_in(self.values.get(name)))[0]
        except ValueError:
            raise self._no_list(name) from None

    def listed(self, name: str) -> Sequence[Any] | None:
        """Return a column's list, also where a text holds it as JSON or a Python literal; None for null."""
        value = self.value(name)
        if isinstance(value, str):
            try:
                value = literal(value)
            except ValueError:
                raise self._no_list(name) from None
        if value is None:
            return None
        if not is_list(value):
            raise self.error(f"expected a list in column {name}, found {short(value)}")
        return tuple(value)

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
            value = math.nan if word in NOTHING else {"true": 1, "false": 0}.get(word, value)
        number = math.inf
        with suppress(ValueError, OverflowError):
            if isinstance(value, (int, float, Decimal)) or (
                isinstance(value, str) and "_" not in value
            ):  # Python's 1_000
                number = float(value)
        if abs(number) > _LARGEST:
            raise self.error(f"expected a number in column {name}, found {short(value)} (leave it null if unknown)")
        return number

    def text(self, name: str) -> str:
        """Return a text that can be stored; raises `Drop` for null and blank ones, `UserError` for what is no text."""
        return self.checked(self.values.get(name), name)

    def checked(self, value: Any, what: str) -> str:
        """Return a value that must be a text that can be stored; raises as `text` does."""
        if value is None:
            raise Drop(f"{what} is null")
        if isinstance(value, (bytes, bytearray)):
            raise self.error(f"expected text in {what}, found bytes: decode the column and import again")
        if not isinstance(value, str):
            raise self.error(f"expected text in {what}, found {short(value)}")
        if blemish := blemish_of(value):
            raise Drop(f"{what} {blemish}")
        if is_bytes(value):
            raise Drop(f"{what} is a Python literal of bytes, b'…': decode the column")
        return value

    def first(self, names: Sequence[str]) -> str:
        """Return the first of these columns that the row has; `UserError` if it has none."""
        for name in names:
            if name in self.values:
                return name
        raise self.error(f"lacks a column {names[0]}: it holds {', '.join(list(self.values)[:12])}")


def filled(value: Any) -> bool:
    """Return whether a value says anything: it is neither null nor empty, nor a text for either."""
    if value is None:
        return False
    if isinstance(value, str):
        return value.strip() not in ("", "[]", "{}", "null", "None")
    if isinstance(value, (list, tuple, dict)):
        return len(value) > 0
    return bool(value == value)  # NaN is not


def short(value: Any) -> str:
    """Return a value for a message, in 40 characters at most."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else f"{text[:37]}…"


def blemish_of(text: str) -> str | None:
    """Return why a text cannot be stored, None for a sound one."""
    if not text or text.isspace():
        return "is empty"
    if "\0" in text:  # HDF5 ends a string there
        return "holds a NUL character"
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        return "is no valid Unicode"
    return None


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


def about(row: Row) -> dict[str, Any]:
    """Return what a row says of its responses: who wrote them, their language and split, what they lack."""
    values = row.values
    named = {name: _name(row, name) for name in ("model", "source", "language", "lang") if name in values}
    return {
        "source": named.get("model") or named.get("source") or None,
        "language": named.get("language", named.get("lang")),
        "redacted": str(values["redacted"]).lower() in ("true", "1") if "redacted" in values else None,
        "split": row.split,
        "is_cut_off": any(str(values[name]).strip().lower() in _CUT_OFF for name in ENDINGS if name in values),
    }


def stored(row: Row, side: str = "") -> Stored | None:
    """Return what a response was in a dataset of this package, None where the row does not tell.

    `side` is "chosen" or "rejected", which the columns of a pair end in and their labels are.
    """
    values, end = row.values, f"_{side}" if side else ""
    split, names = values.get("split"), ("prompt_id", f"response_id{end}")
    if split not in ("train", "test") or not set(names) <= values.keys():
        return None
    try:
        ids = [float(values[name]) for name in names]
    except (TypeError, ValueError):  # H4's prompt_id is a hash
        return None
    if not all(0 <= value < 2**31 and value.is_integer() for value in ids):
        return None
    label = side == "chosen" if side else values.get("label")
    score = values.get(f"score{end}")
    return Stored(
        prompt_id=int(ids[0]),
        response_id=int(ids[1]),
        split=str(split),
        label=label if isinstance(label, bool) else None,
        score=float(score) if isinstance(score, int | float) else None,
    )


def _name(row: Row, column: str) -> str:
    """Return a text, the empty one for what is none or cannot be stored; `UserError` for bytes."""
    value = row.values[column]
    if isinstance(value, bytes):
        row.checked(value, column)
    return value if isinstance(value, str) and not blemish_of(value) else ""


def is_list(value: Any) -> bool:
    """Return whether a value is a list, as conversations are."""
    return isinstance(value, (list, tuple))


def is_turn(value: Any) -> bool:
    """Return whether a value has the keys of a conversation's turn."""
    return isinstance(value, Mapping) and any(keys <= value.keys() for keys in map(set, TURNS))


def literal(text: str) -> Any:
    """Return the value of JSON, of a Python literal or of a NumPy array of objects; `ValueError` for other text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    stripped = text.strip()
    array = _ARRAY.match(stripped)
    try:
        return ast.literal_eval(array[1] if array else stripped)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ValueError("neither JSON nor a Python literal") from None


def conversation_in(value: Any) -> Any:
    """Return a conversation as a list of turns however it is written, and any other value as it is.

    It may be one turn, the request of an API (`{"messages": …}` and nothing else), text that holds a literal, or a list
    for each key of a turn, as Hugging Face's `Sequence` stores it. Raises `ValueError` for text that begins as a
    conversation does and cannot be parsed.
    """
    if is_list(value):
        return _turns(value)
    if isinstance(value, Mapping):
        if is_list(value.get("messages")) and [key for key, held in value.items() if filled(held)] == ["messages"]:
            return _turns(value["messages"])
        return [value] if is_turn(value) and not _is_transposed(value) else _transposed(value)
    if not isinstance(value, str) or not _CHAT.match(value):
        return value
    found = literal(value)
    if isinstance(found, str):  # encoded twice
        found = literal(found)
    turns = conversation_in(found)
    return turns if is_list(turns) and all(map(is_turn, turns)) else value


def _turns(items: Sequence[Any]) -> Sequence[Any]:
    """Return turns of role and content where Gemini's `parts` or pairs of `input` and `output` are, as in Capybara."""
    first = items[0] if items else None
    if not isinstance(first, Mapping):
        return items
    if first.keys() == {"input", "output"} and all(isinstance(item, Mapping) for item in items):
        sides = (("user", "input"), ("assistant", "output"))
        return [{"role": role, "content": item.get(key)} for item in items for role, key in sides]
    if "parts" not in first or "role" not in first:
        return items
    return [
        {**item, "content": _typed(item["parts"])} if isinstance(item, Mapping) and is_list(item.get("parts")) else item
        for item in items
    ]


def _typed(parts: Sequence[Any]) -> list[Any]:
    """Return the parts of a content with their types, which Gemini's have as a key: text, functionCall, inlineData."""
    return [
        {"type": "thought" if part.get("thought") else "text" if "text" in part else next(iter(part), "part"), **part}
        if isinstance(part, Mapping)
        else {"type": "text", "text": part}
        for part in parts
    ]


def joined(content: Any) -> tuple[Any, str | None]:
    """Return the text of a list of parts, as chat interfaces write content, and the type of one that is no text.

    `[{"type": "text", "text": …}]`, also as a literal; any other content is returned as it is.
    """
    parts = content
    if isinstance(content, str):
        if not _PARTS.match(content):
            return content, None
        try:
            parts = literal(content)
        except ValueError:
            return content, None
        if not is_list(parts) or not all(isinstance(part, Mapping) and part.get("type") in _TEXTS for part in parts):
            return content, None  # an answer that is JSON
    if not is_list(parts) or not parts or not all(isinstance(part, Mapping) and "type" in part for part in parts):
        return content, None
    if (other := next((part["type"] for part in parts if part["type"] not in _TEXTS), None)) is not None:
        return content, str(other)
    texts = [part.get("text") for part in parts]
    return "\n".join(texts) if all(isinstance(text, str) for text in texts) else content, None


def mapping_in(value: Any) -> Any:
    """Return an object that a text holds as a literal, and any other value as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith("{"):
        return value
    try:
        found = literal(value)
    except ValueError:
        return value
    return found if isinstance(found, Mapping) else value


def is_written_list(text: Any) -> bool:
    """Return whether a value is a text that holds a list of texts as JSON or a Python literal."""
    if not isinstance(text, str) or not text.startswith("["):
        return False
    try:
        found = literal(text)
    except ValueError:
        return False
    return is_list(found) and len(found) > 0 and all(isinstance(item, str) for item in found)


def is_bytes(text: str) -> bool:
    """Return whether a text is the Python literal of bytes, b'…'."""
    if not _BYTES.match(text):
        return False
    try:
        return isinstance(ast.literal_eval(text.strip()), bytes)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False


def _is_transposed(value: Mapping[str, Any]) -> bool:
    return bool(value) and all(map(is_list, value.values()))


def _transposed(value: Mapping[str, Any]) -> Any:
    """Return the items of `{key: list}`, the value itself where the lists are not of one length."""
    if not _is_transposed(value) or len({len(column) for column in value.values()}) > 1:
        return value
    return [dict(zip(value, items, strict=True)) for items in zip(*value.values(), strict=True)]
