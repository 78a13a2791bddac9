"""A response: a completion of a prompt with its score, and what else a row says of it."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

from pmpo_offline.data.exchange.forms.row import Row, blemish_of

_SPLITS = dict.fromkeys(("train", "training"), "train") | dict.fromkeys(
    ("test", "testing", "validation", "valid", "val", "dev", "eval", "evaluation", "heldout", "held", "holdout"), "test"
)


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


def about(row: Row) -> dict[str, Any]:
    """Return who wrote the row's responses, in which language, in which split, and whether names were redacted."""
    values = row.values
    named = {name: _name(row, name) for name in ("model", "source", "language", "lang") if name in values}
    return {
        "source": named.get("model") or named.get("source") or None,
        "language": named.get("language", named.get("lang")),
        "redacted": str(values["redacted"]).lower() in ("true", "1") if "redacted" in values else None,
        "split": row.split or split_named(values.get("split")),
    }


def split_named(name: object) -> str | None:
    """Return "train" or "test" for the name of a split or of its file, None for a name that is neither."""
    found = [_SPLITS[word] for word in re.split(r"[^a-z]+", str(name).lower()) if word in _SPLITS]
    return found[-1] if found else None


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
