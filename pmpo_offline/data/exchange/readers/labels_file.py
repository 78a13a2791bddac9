"""Labels or scores in a file beside the episodes, which names them: one a row, of an episode or of one of its steps."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from pmpo_offline.data.exchange.forms import files
from pmpo_offline.data.exchange.forms.cells import short
from pmpo_offline.data.exchange.forms.columns import directed, inside, word_of
from pmpo_offline.data.exchange.forms.names import snake
from pmpo_offline.data.exchange.forms.row import Row
from pmpo_offline.data.exchange.readers.feedback import WORDS, Values, number_in, parsed
from pmpo_offline.data.exchange.readers.flat import EPISODES, LABELS
from pmpo_offline.data.exchange.readers.order import STEPS
from pmpo_offline.runtime.errors import UserError, unknown

_NAMES = (
    *("demo", "demo_id", "rollout", "trial", "run", "traj", "clip"),
    *("file", "filename", "file_name", "path", "video", "name", "id"),
)
"""Columns that name episodes where no column is called as in `EPISODES`."""
_STEPS = (*STEPS, "frame", "frame_id", "t")
_RANGES = re.compile(r"(start|end|from|to|first|last)_(step|frame)s?|(step|frame)s?_(start|end|from|to)")
_SHOWN = 8
"""Columns that a message lists."""


@dataclass(frozen=True)
class Episodes:
    """The episodes that were read."""

    numbers: NDArray[Any]
    """(E,) numbers or names of the episodes in the source."""
    length: NDArray[np.int64]
    """(E,) their steps."""
    cut: bool = False
    """Whether the last row of some was dropped, as no step."""

    @cached_property
    def _places(self) -> dict[str, int]:
        """The place of each by its number or name, and of named ones by the number at the end if all differ in it."""
        names = [str(number) for number in self.numbers.tolist()]
        found = {name: place for place, name in enumerate(names)}
        ends = [_number_of(name) for name in names]
        return {**{str(end): place for place, end in enumerate(ends)}, **found} if len({*ends}) == len(ends) else found

    def place(self, name: Any, where: str, line: str) -> int:
        """Return the place of the episode that a cell names; `UserError`, which begins with `where`, if none is."""
        text = str(name).strip()
        stem = re.sub(r"\.[A-Za-z]\w*$", "", text)  # of a file: the 4 of demo_7.mp4 is no episode
        number = _number_of(stem)
        for key in (text, stem, stem.rpartition("/")[2], str(number)):
            if key in self._places:
                return self._places[key]
        if number is None and self.numbers.dtype.kind != "U":
            raise UserError(f"{where}: expected an episode's number or a name that ends with it, found {name!r}")
        of = f"{len(self.numbers)} episodes, {self.numbers[0]} to {self.numbers[-1]}"
        called = text if self.numbers.dtype.kind == "U" else number
        raise UserError(f"{where.partition(',')[0]}: episode {called} in {line} is not in the source, which has {of}")

    def row(self, place: int, step: Any, where: str) -> int | None:
        """Return the row of a step of an episode, None for one that was dropped; `UserError` if there is none."""
        count = int(self.length[place])
        number = number_in(str(step))
        if number is None or number != int(number) or not 0 <= number < count + self.cut:
            of = f"{count} steps of episode {self.numbers[place]}, 0 to {count - 1}"
            raise UserError(f"{where}: step {step} is not in the source, which has {of}")
        return int(self.length[:place].sum() + number) if number < count else None


def feedback_of_file(
    path: Path, episodes: Episodes, score: str | None = None, accept: Sequence[str] = ()
) -> tuple[Values, dict[str, JsonValue], list[str]]:
    """Return the feedback (E,) or (N,) in a file of rows (`forms.files`), its note, and the columns that were not used.

    A row has the column `episode` (or `episode_id`, …), the number of an episode in the source, its name, or one that
    ends with the number (demo_7), and its label or score in the column `score` (as `--score` has it), else in the only
    other one or the one called label; of ranks the lowest is best. With a column `step` (or `frame_index`, …), counted
    from 0, a row is of a step. The values `accept`, if any, mean accept, and all others but empty ones reject.

    Raises `UserError` for a file that cannot be read, columns among which none is chosen, an episode that is not there,
    one that is named twice with different values, and a column of which less is mostly better.
    """
    rows = _rows(path)
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    episode = _column_of_episodes(names, path)
    if ranges := [name for name in names if _RANGES.fullmatch(snake(name))]:
        raise UserError(f"--labels {path}: {ranges[0]} is of ranges: write a row for each step, with a column step")
    step = next((name for name in names if snake(name) in _STEPS), None)
    others = [name for name in names if name not in (episode, step)]
    written = _column_of_labels(others, path) if score is None else score
    said = (f"--labels {path}: column", "") if score is None else ()
    column, sign = (written, 1.0) if accept else directed(written, *said)
    own = written if score is None else column  # a header may have a sign of its own
    if own not in others:
        raise unknown(f"column of {path.name} for --score:", own, others)

    def line(index: int) -> str:
        return rows[index].place.removeprefix(f"{path.name}, ")

    held = np.array([inside(row.values.get(own)) for row in rows], object)
    values, are_labels = parsed(_accepted(held, accept, path) if accept else held, f"--labels {path}: {column}", line)
    found: dict[int, tuple[float, int]] = {}
    dropped = 0
    for index, (row, value) in enumerate(zip(rows, (sign * values).tolist(), strict=True)):
        where = f"--labels {path}, {line(index)}"
        place = episodes.place(row.values.get(episode), where, line(index))
        unit = place if step is None else episodes.row(place, row.values.get(step), where)
        if unit is None:
            dropped += 1
            continue
        first, before = found.setdefault(unit, (value, index))
        if not np.array_equal(first, value, equal_nan=True):
            of = "" if step is None else f", {step} {row.values[step]},"
            raise UserError(
                f"--labels {path}: episode {episodes.numbers[place]}{of} has two values, {short(held[before])} in "
                f"{line(before)} and {short(held[index])} in {line(index)}: leave at least one out"
            )
    count = len(episodes.numbers) if step is None else int(episodes.length.sum())
    labels = np.full(count, np.nan, np.float32)
    labels[[*found]] = [value for value, _ in found.values()]
    note: dict[str, JsonValue] = {"column": f"{path.name}: {column}", "of": "step" if step else "episode"}
    note |= {"labels": are_labels} | ({"of_dropped_rows": dropped} if dropped else {})
    return labels, note, [f"{path.name}: {name}" for name in others if name != own]


def _rows(path: Path) -> list[Row]:
    """Return the rows of a file; one object in JSON holds columns as lists, or a label for each episode by its name."""
    if not path.is_file():
        raise UserError(f"--labels {path}: there is no such file")
    if not (kind := files.kind_of(path)):
        raise UserError(f"--labels {path}: expected a file that ends in .csv, .jsonl, .json or .parquet")
    rows = list(files.rows(path))
    if kind != "JSON" or len(rows) != 1:
        return rows
    whole, name = rows[0].values, path.name
    if {*map(type, whole.values())} == {list} and len({*map(len, whole.values())}) == 1:
        found = zip(*whole.values(), strict=True)
        return [Row(dict(zip(whole, row, strict=True)), f"{name}, item {n}") for n, row in enumerate(found, 1)]
    if not any(snake(key) in (*EPISODES, *_NAMES) for key in whole):
        return [Row({"episode": key, "label": value}, f"{name}, {key}") for key, value in whole.items()]
    return rows


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
    found = next(filter(None, ([name for name in names if snake(name) in known] for known in (EPISODES, _NAMES))), [])
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


def _number_of(name: str) -> int | None:
    """Return the whole number that a name is, or that at its end; None if there is none."""
    digits = re.fullmatch(r"(\d{1,18})(?:\.0*)?", name)  # 7.0: a whole column of floats, as pandas writes one with gaps
    is_name = any(map(str.isalpha, name)) and not name.lower().startswith("0x")
    if digits is None and is_name and number_in(name) is None:  # the end of -7, 1.5 or 2026-11-30 is no episode
        digits = re.search(r"(?<!\d)(\d{1,18})$", name)
    return None if digits is None else int(digits[1])
