"""Labels and scores that a source brings: in a column of its steps, or in a file that names its episodes.

true, 1, accept, success, positive, …   accepted          numbers of any other kind are scores, which a threshold splits
false, reject, failure, negative, …     rejected          (`--label column:T`); a column of 1, −1 and 0 holds labels,
null, NaN, ""                           unlabelled        where 0 is unlabelled; one of 1 and 0 holds labels as well

A column that has one value in each episode labels the episodes, any other one the steps.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from pmpo_offline.data.exchange.forms import columns, files
from pmpo_offline.data.exchange.forms.cells import short
from pmpo_offline.data.exchange.forms.columns import directed, inside, snake, word_of
from pmpo_offline.data.exchange.readers.flat import EPISODES, LABELS
from pmpo_offline.data.exchange.readers.rounding import note_rounded
from pmpo_offline.runtime.errors import UserError, unknown

_ACCEPTS = "accept accepted accepts success successes successful succeeded positive positives good expert"
_REJECTS = "reject rejected rejects fail failed failure failures negative negatives bad"
_FOLDERS = {**dict.fromkeys(_ACCEPTS.split(), 1.0), **dict.fromkeys(_REJECTS.split(), -1.0)}
"""The label of episodes by a word in their folder's name; fewer than in a column, for `right` may be an arm."""
WORDS: Mapping[str, float] = {**columns.WORDS, **_FOLDERS, **dict.fromkeys(("", "unlabelled", "unlabeled"), np.nan)}
"""The label of an episode or a step by a text in a column: +1 accept, −1 reject, NaN neither."""
Values = NDArray[np.float32]
_SHOWN = 8
"""Columns that a message lists."""


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
    found = [math.nan if math.isnan(WORDS.get(word, 0.0)) else _number_in(word) for word in words]
    if None not in found:
        return parsed(np.array(found, np.float64), where)
    unknown = next((row for row, word in enumerate(words) if word not in WORDS), None)
    if unknown is not None:
        raise UserError(
            f"{where}: expected a number or a label such as accept, reject, success or failure, found "
            f"{texts[unknown]!r} in {place(unknown)} (empty: unlabelled; --labels with --accept takes other words)"
        )
    return np.array([WORDS[word] for word in words], np.float32), True


def _number_in(word: str) -> float | None:
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
) -> tuple[Values, JsonValue]:
    """Return the feedback in a column of the steps (N,), one value an episode if that is what it holds, and its note.

    The note says which column it is, whether it is of steps or episodes, and whether its values are labels.
    """
    found, are_labels = parsed(values, f"{where}: {column}")
    start = np.cumsum(length) - length
    first = np.repeat(found[start], length)
    by_episode = bool(((found == first) | (np.isnan(found) & np.isnan(first))).all())
    note: JsonValue = {"column": column, "of": "episode" if by_episode else "step", "labels": are_labels}
    return found[start] if by_episode else found, note


def feedback_of_file(
    path: Path, numbers: NDArray[np.int64], score: str | None = None, accept: Sequence[str] = ()
) -> tuple[Values, JsonValue, list[str]]:
    """Return the feedback (E,) in a file of rows (`forms.files`), its note, and the columns that were not used.

    A row has the column `episode` (or `episode_id`, …), the number of an episode in the source or a name that ends with
    it (demo_7), and its label or score in the column `score` (as `--score` has it), else in the only other one or the
    one called label; of ranks the lowest is best. `numbers` (E,) are those of the episodes that were read. The
    values `accept`, if any, mean accept, and all others but empty ones reject.

    Raises `UserError` for a file that cannot be read, columns among which none is chosen, an episode that is not there,
    one that is named twice with different values, and a column of which less is mostly better.
    """
    if not path.is_file():
        raise UserError(f"--labels {path}: there is no such file")
    if not files.kind_of(path):
        raise UserError(f"--labels {path}: expected a file that ends in .csv, .jsonl, .json or .parquet")
    rows = list(files.rows(path))
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    episode = _column_of_episodes(names, path)
    others = [name for name in names if name != episode]
    written = _column_of_labels(others, path) if score is None else score
    said = (f"--labels {path}: column", "") if score is None else ()
    column, sign = (written, 1.0) if accept else directed(written, *said)
    own = written if score is None else column  # a header may have a sign of its own
    if own not in others:
        raise unknown(f"column of {path.name} for --score:", own, others)

    def place(index: int) -> str:
        return rows[index].place.removeprefix(f"{path.name}, ")

    named = [_number(row.values.get(episode), f"--labels {row.place}") for row in rows]
    held = np.array([inside(row.values.get(own)) for row in rows], object)
    values, are_labels = parsed(_accepted(held, accept, path) if accept else held, f"--labels {path}: {column}", place)
    found: dict[int, tuple[float, int]] = {}
    known = set(numbers.tolist())
    for index, (number, value) in enumerate(zip(named, (sign * values).tolist(), strict=True)):
        if number not in known:
            raise UserError(
                f"--labels {path}: episode {number} in {place(index)} is not in the source, which has {len(numbers)} "
                f"episodes, {numbers[0]} to {numbers[-1]}"
            )
        first, line = found.setdefault(number, (value, index))
        if not np.array_equal(first, value, equal_nan=True):
            raise UserError(
                f"--labels {path}: episode {number} has two values, {short(held[line])} in {place(line)} and "
                f"{short(held[index])} in {place(index)}: leave at least one out"
            )
    note: JsonValue = {"column": f"{path.name}: {column}", "of": "episode", "labels": are_labels}
    labels = np.array([found.get(number, (np.nan, 0))[0] for number in numbers.tolist()], np.float32)
    return labels, note, [f"{path.name}: {name}" for name in others if name != own]


def _accepted(held: NDArray[Any], accept: Sequence[str], path: Path) -> NDArray[Any]:
    """Return labels in words: accept where a value is one of `accept`, "" where it is none, else reject."""
    words = ["" if value is None else word_of(value) for value in held]
    wanted = {word_of(value) for value in accept}
    if never := [value for value in accept if word_of(value) not in words]:
        found = ", ".join(list(dict.fromkeys(filter(None, words)))[:_SHOWN])
        raise UserError(f"--accept {never[0]}: no row of {path} holds it, they hold {found}")
    said = ["accept" if word in wanted else "" if math.isnan(WORDS.get(word, 0.0)) else "reject" for word in words]
    return np.array(said, object)


def _column_of_episodes(names: Sequence[str], path: Path) -> str:
    found = [name for name in names if snake(name) in EPISODES]
    if len(found) != 1:
        raise UserError(
            f"--labels {path}: expected one column of episodes, called {', '.join(EPISODES[:3])} or the like, found "
            f"{_listed(found or names)}: {'leave all but one out' if found else 'rename it'}"
        )
    return found[0]


def _column_of_labels(others: Sequence[str], path: Path) -> str:
    """Return the only column beside the episodes', or the only one that is called label."""
    called = [name for name in others if snake(name) in LABELS]
    chosen = others if len(others) == 1 else called
    if len(chosen) != 1:
        raise UserError(
            f"--labels {path}: "
            + (
                f"which column holds the labels? Choose one of {_listed(called or others)} with --score"
                if others
                else "there is no column beside the episodes': add one of labels or scores"
            )
        )
    return chosen[0]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if names[_SHOWN:] else "")


def _number(name: Any, where: str) -> int:
    """Return an episode's number, or that at the end of its name; `UserError`, which begins with `where`, if none."""
    text = re.sub(r"\.[A-Za-z]\w*$", "", str(name).strip())  # of a file: the 4 of demo_7.mp4 is no episode
    digits = re.fullmatch(r"(\d{1,18})(?:\.0*)?", text)  # 7.0: a whole column of floats, as pandas writes one with gaps
    if digits is None and _number_in(text) is None:  # the end of -7 or 1.5 is no episode
        digits = re.search(r"(?<!\d)(\d{1,18})$", text)
    if digits is None:
        raise UserError(f"{where}: expected an episode's number or a name that ends with it, found {name!r}")
    return int(digits[1])


def meaning_of(folder: str) -> float | None:
    """Return +1 or −1 for a folder's name such as accepts, failure-data or Success_v2; None if it says neither or both.

    The words of the name are looked up one by one.
    """
    words: Sequence[str] = re.split(r"[^a-z]+", folder.lower())
    found = {_FOLDERS[word] for word in words if word in _FOLDERS}
    return found.pop() if len(found) == 1 else None
