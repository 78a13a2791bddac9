"""One response a row: TRL's unpaired form, scored rows, and what this package itself exports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pmpo_offline.data.exchange.forms.conversations import THUMBS, about, unanswerable
from pmpo_offline.data.exchange.forms.labels import label, thumb
from pmpo_offline.data.exchange.forms.response import Drop, Prompt, Reading, Response, Row, is_conversation, turns

PROMPTS = ("prompt", "instruction")
COMPLETIONS = ("completion", "response")
SCORES = ("score", "rating", "reward", "overall_score", "fine-grained_score")
"""What columns may be called; the first that is there counts."""


def of_unpaired(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield the response of a row with a label: `prompt, completion, label`, or a thumb of another name."""
    name = first(row, THUMBS)
    score = label(row, name, reading) if name == "label" else thumb(row, name, reading)
    yield _response(row, reading, score, about(row))


def of_scored(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield the response of a row with a score."""
    yield _response(row, reading, row.number(reading.score or first(row, SCORES)), about(row))


def of_own(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    """Yield the response of a row that an export of this package wrote, at its own place."""
    score = row.number(reading.score) if reading.score else label(row, "label", reading)
    reading.pass_over(row, "score")
    yield _response(row, reading, score, about(row) | {"stored": stored(row, "response_id")})


def stored(row: Row, response_id: str) -> tuple[int, int, str] | None:
    """Return the place that a response had in a dataset of this package, None where the row does not tell."""
    split = row.values.get("split")
    if split not in ("train", "test") or not {"prompt_id", response_id} <= row.values.keys():
        return None
    ids = [row.number(name) for name in ("prompt_id", response_id)]
    if not all(0 <= value < 2**31 and value.is_integer() for value in ids):
        return None
    return int(ids[0]), int(ids[1]), str(split)


def first(row: Row, names: tuple[str, ...]) -> str:
    """Return the first of these columns that the row has."""
    return next(name for name in names if name in row.values)


def prompt_of(row: Row, value: Any, reading: Reading) -> Prompt | Drop:
    """Return a prompt, text or turns that end with the user's, or why there is none."""
    if value is not None:
        reading.steady(row, is_conversation(value))
    if not is_conversation(value):
        return row.checked(value, "prompt")
    found = turns(row, value, "prompt")
    return found if isinstance(found, Drop) else unanswerable(found, "prompt") or found


def completion_of(row: Row, value: Any, what: str, reading: Reading) -> str | Drop:
    """Return a completion, text or the one turn of the assistant, or why there is none."""
    if value is not None:
        reading.steady(row, is_conversation(value))
    if not is_conversation(value):
        return row.checked(value, what)
    found = turns(row, value, what)
    if isinstance(found, Drop):
        return found
    return found[0].content if [each.role for each in found] == ["assistant"] else Drop(f"{what} is not one turn")


def _response(row: Row, reading: Reading, score: float, known: dict[str, Any]) -> Response | Drop:
    prompt = prompt_of(row, row.values[first(row, PROMPTS)], reading)
    if isinstance(prompt, Drop):
        return prompt
    completion = completion_of(row, row.values[first(row, COMPLETIONS)], "completion", reading)
    return completion if isinstance(completion, Drop) else Response(prompt, completion, score, **known)
