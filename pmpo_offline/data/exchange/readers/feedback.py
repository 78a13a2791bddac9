"""Labels and scores that a source brings: in a column of its steps, or in a file that names its episodes.

true, 1, accept, success, positive, …   accepted          numbers of any other kind are scores, which a threshold splits
false, reject, failure, negative, …     rejected          (`--label column:T`); a column of 1, −1 and 0 holds labels,
null, NaN, ""                           unlabelled        where 0 is unlabelled; one of 1 and 0 holds labels as well

A column that has one value in each episode labels the episodes, any other one the steps.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from pmpo_offline.data.exchange.forms import columns
from pmpo_offline.data.exchange.forms.columns import word_of
from pmpo_offline.data.exchange.readers.arrays import note_rounded
from pmpo_offline.runtime.errors import UserError

_ACCEPTS = "accept accepted accepts approved success successes successful succeeded positive positives pos good expert"
_REJECTS = "reject rejected rejects fail failed failure failures unsuccessful negative negatives neg bad"
_NOT = {"not", "non", "no", "un", "never"}
_FOLDERS = {**dict.fromkeys(_ACCEPTS.split(), 1.0), **dict.fromkeys(_REJECTS.split(), -1.0)}
"""The label of episodes by a word in their folder's name; fewer than in a column, for `right` may be an arm."""
WORDS: Mapping[str, float] = {**columns.WORDS, **_FOLDERS, **dict.fromkeys(("", "unlabelled", "unlabeled"), np.nan)}
"""The label of an episode or a step by a text in a column: +1 accept, −1 reject, NaN neither."""
Values = NDArray[np.float32]


def parsed(values: NDArray[Any], where: str, place: Callable[[int], str] = "row {}".format) -> tuple[Values, bool]:
    """Return a column's values (n,), NaN where there is none, and whether they are labels, +1 and −1.

    Raises `UserError` for a value that is neither a number nor one of `WORDS`; `place` says where a row is.
    """
    if not len(values):
        raise UserError(f"{where}: there are no rows")
    flat = values.reshape(len(values), -1)
    if flat.shape[1] != 1:
        raise UserError(f"{where}: expected one value a row, found shape {values.shape}")
    column = flat[:, 0]
    if column.dtype.kind == "b":
        return np.where(column, 1, -1).astype(np.float32), True
    if column.dtype.kind in "iuf":
        with np.errstate(over="ignore"):
            numbers = column.astype(np.float32)
        if (infinite := np.isinf(numbers)).any():
            row = int(infinite.argmax())
            raise UserError(f"{where}: expected a number, found {column[row]} in {place(row)} (NaN: unlabelled)")
        note_rounded(numbers, column, where.rpartition(": ")[2])
        return _numbers(numbers)
    texts = ["" if value is None else value.decode() if isinstance(value, bytes) else str(value) for value in column]
    words = [word_of(text) for text in texts]
    found = [math.nan if math.isnan(WORDS.get(word, 0.0)) else number_in(word) for word in words]
    if None not in found:
        return parsed(np.array(found, np.float64), where)
    unknown = next((row for row, word in enumerate(words) if word not in WORDS), None)
    if unknown is not None:
        raise UserError(
            f"{where}: expected a number or a label such as accept, reject, success or failure, found "
            f"{texts[unknown]!r} in {place(unknown)} (empty: unlabelled; --labels with --accept takes other words)"
        )
    return np.array([WORDS[word] for word in words], np.float32), True


def number_in(word: str) -> float | None:
    """Return the finite number that a text is, None for all else."""
    try:
        number = float(word.replace("_", "?"))  # Python's 1_000
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _numbers(values: Values) -> tuple[Values, bool]:
    kinds = set(np.unique(values[~np.isnan(values)]).tolist())
    if kinds <= {0.0, 1.0}:
        return np.where(values == 0, np.float32(-1), values), True
    if kinds <= {-1.0, 0.0, 1.0}:
        return np.where(values == 0, np.float32(np.nan), values), True
    return values, False


def feedback_of_steps(
    column: str, values: NDArray[Any], length: NDArray[np.int64], where: object
) -> tuple[Values, dict[str, JsonValue]]:
    """Return the feedback in a column of the steps (N,), one value an episode if that is what it holds, and its note.

    The note says which column it is, whether it is of steps or episodes, and whether its values are labels.
    """
    found, are_labels = parsed(values, f"{where}: {column}")
    start = np.cumsum(length) - length
    first = np.repeat(found[start], length)
    by_episode = bool(((found == first) | (np.isnan(found) & np.isnan(first))).all())
    note: dict[str, JsonValue] = {"column": column, "of": "episode" if by_episode else "step", "labels": are_labels}
    known = np.flatnonzero(~np.isnan(found))
    for which, rows in () if by_episode else (("first", start), ("last", start + length - 1)):
        if np.isin(known, rows).all():
            note["only_of"] = f"the {which} steps of episodes"
    return found[start] if by_episode else found, note


def meaning_of(folder: str) -> float | None:
    """Return +1 or −1 for a folder's name such as accepts, failure-data or Success_v2; None if it says neither or both.

    The words of the name are looked up one by one.
    """
    words = re.split(r"[^a-z]+", re.sub(r"thumbs?[^a-z]?(?=up|down)", "thumbs", folder.lower()))
    known = {**_FOLDERS, "thumbsup": 1.0, "thumbsdown": -1.0}
    found = {known[word] for word in words if word in known}
    return found.pop() if len(found) == 1 and not _NOT.intersection(words) else None
