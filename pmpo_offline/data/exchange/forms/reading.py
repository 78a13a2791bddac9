"""Reading: how a source is read, and what its rows were found to say: labels, scores and splits."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pmpo_offline.data.exchange.forms import columns
from pmpo_offline.data.exchange.forms.cells import filled, short
from pmpo_offline.data.exchange.forms.columns import LABELS, SCORES, THUMBS_DOWN, WORDS, inside, split_named, word_of
from pmpo_offline.data.exchange.forms.names import RANKS, is_part_of_prompt, may_be_part
from pmpo_offline.data.exchange.forms.report import Report
from pmpo_offline.data.exchange.forms.row import Response, Row
from pmpo_offline.runtime.errors import UserError

_BETTER = {
    **{f"{word}_is_better": 1.0 for word in ("higher", "larger", "greater", "bigger", "more")},
    **{f"{word}_is_better": -1.0 for word in ("lower", "smaller", "less")},
}
"""Columns that say whether more or less of a score is better."""
_SET = ("thumbs", "thumbs_up", "thumb", "vote", "liked", "accepted")
"""Labels that are false also where there was no feedback, if the other thumb has a column."""
_NUMBERS = ("1", "0", "-1", "true", "false")
"""Labels that are numbers as well."""
_SCALES = ("max_score", "max_rating", "score_max", "rating_max", "scale", "score_scale", "rating_scale", "out_of")
"""Columns of the largest score that could be given."""


class MixedFrames(UserError):
    """Some rows have a system message or a history, and others are plain texts: read them again with `Row.as_turns`."""


@dataclass
class Reading:
    """How a source is read, and what was met on the way."""

    score: str | None = None
    """The column of scores; None: the form's own."""
    transcripts: bool = True
    """Whether conversations become `Human:/Assistant:` transcripts, so that such texts need not be taken apart."""
    accept: tuple[str, ...] = ()
    """The values of the column of labels (or of `score`) that mean accept, all others meaning reject; empty: words."""
    sign: float = 1.0
    """Of the scores in the column `score`, such that more is better."""
    called: Mapping[str, str] = field(default_factory=dict)
    """What the source calls columns that were renamed."""
    report: Report = field(default_factory=Report)
    """What was met that the report names."""
    conversational: bool | None = None
    """Whether the texts are conversations; None before the first row."""
    framed: bool = False
    """Whether a row had a system message or a history."""
    list_score: str | None = None
    """The column of scores in lists of completions, once it was met: their scales are not mixed."""
    other_score: str | None = None
    """What `--score` calls the first numbers that were not taken, labels or other scores being taken."""
    used: set[str] = field(default_factory=set)
    """Columns that labels and scores were taken from."""
    unread: set[str] = field(default_factory=set)
    """Columns that hold something and are not the form's."""
    differing: set[str] = field(default_factory=set)
    """Columns of texts that are not used, and in which rows of one prompt differ."""
    first_texts: dict[tuple[str, int], int] = field(default_factory=dict)
    """The first text of such a column, by the column and the prompt, as hashes."""
    scales: dict[str, Any] = field(default_factory=dict)
    """The first value of each column of largest scores."""
    kinds: dict[tuple[str, bool], str] = field(default_factory=dict)
    """Where a column of scores first held a Boolean, and a number that is none."""

    def pass_over(self, scores: Mapping[str, Any]) -> None:
        """Note scores that are not taken, by what `--score` calls them, where they say more than a label."""
        if self.score is None and self.other_score is None:
            self.other_score = next((name for name, value in scores.items() if value not in (None, "", 1, 0, -1)), None)

    def tell_apart(self, row: Row, unread: Iterable[str], response: Response) -> None:
        """Note columns of texts that are not used and differ between rows of one prompt.

        Raises `UserError` where the name says that such a column is part of the prompt.
        """
        for name in unread:
            value = row.values[name]
            if not isinstance(value, str) or response.completion.strip() in value or name in self.differing:
                continue
            part = is_part_of_prompt(name)
            if not part and not may_be_part(name, value):
                continue
            text = hash(value)
            if self.first_texts.setdefault((name, hash(response.prompt)), text) == text:
                continue
            if part:
                raise row.error(
                    f"column {name} differs between rows of one prompt and is not used: add --columns context={name} "
                    "if it is part of the prompt, else leave it out"
                )
            self.differing.add(name)

    def refuse_mixed(self, row: Row, conversational: bool) -> None:
        """Raise `UserError` where plain texts and conversations are mixed: `MixedFrames` if a row was framed."""
        if self.conversational is None:
            self.conversational = conversational
        if self.conversational != conversational:
            kinds = {True: "a conversation", False: "plain text"}
            error = row.error(
                f"found {kinds[conversational]}, and the rows before hold {kinds[self.conversational]}: "
                "import files of one form at a time"
            )
            raise MixedFrames(str(error)) if self.framed else error

    def split(self, row: Row) -> str | None:
        """Return the split that a row is of by its file and its columns, None if nothing says it.

        Raises `UserError` for numbered parts, of which none is held out, and for columns that contradict each other.
        """
        found = {"(its file's name)": row.split} if row.split else {}
        for name in columns.SPLITS:
            if name not in row.values or not filled(value := row.values[name]):
                continue
            word = word_of(value)
            if name in columns.SPLIT_FLAGS:
                if word not in WORDS:
                    raise row.error(f"expected true or false in column {name}, found {short(value)}")
                if not math.isnan(WORDS[word]):
                    yes, no = columns.SPLIT_FLAGS[name]
                    found[name] = yes if WORDS[word] == 1 else no
            elif name not in columns.AMBIGUOUS_SPLITS and re.fullmatch(r"-?\d+", word):
                fold = "the folds: call one test in a column split"
                what = fold if name == "fold" else "its parts: call them train and test"
                raise row.error(f"column {name} numbers {what}, or add --test-share 0.1")
            elif named := split_named(value) if "split" in name else columns.PARTS.get(word):
                found[name] = named
            elif name not in columns.AMBIGUOUS_SPLITS:
                self.report.splits_not_understood[f"{name} {short(value)}"] += 1
        if len(set(found.values())) > 1:
            raise row.error(f"columns {' and '.join(found)} say different splits: leave all but one out")
        return next(iter(found.values()), None)

    def number(self, row: Row, name: str) -> float:
        """Return a column's score: its number, with the other sign for a rank; the label where `accept` is given.

        Raises `UserError` where a column holds true or false beside numbers other than 0 and 1, where another says that
        less is better, or that scores are on several scales.
        """
        self.used.add(name)
        if self.accept:
            return self.label(row, name)
        self._check_scale(row, name)
        value = row.values.get(name)
        if isinstance(value, str) and WORDS.get(word := word_of(value)) in (1, -1) and word not in _NUMBERS:
            raise row.error(
                f"expected a number in column {name}, found {short(value)}: add --columns label={name} if it holds "
                "such words"
            )
        number = row.number(name)
        flag = isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in ("true", "false"))
        if flag or not (math.isnan(number) or number in (0, 1)):
            self.kinds.setdefault((name, flag), row.place)
            if other := self.kinds.get((name, not flag)):
                held = ("true or false", "a number")[:: 1 if flag else -1]
                raise row.error(f"column {name} holds {held[0]}, and {held[1]} in {other}: write one kind of score")
        return number * (self.sign if self.score else -1.0 if name in RANKS else 1.0)

    def _check_scale(self, row: Row, name: str) -> None:
        for other, sign in _BETTER.items():
            if other in row.values:
                self.used.add(other)
                if WORDS.get(word_of(row.values[other]), sign) * sign * self.sign < 0 and name not in RANKS:
                    more, direction = ("less", "-") if self.sign > 0 else ("more", "+")
                    raise row.error(
                        f"column {other} says that {more} of {name} is better: write --score={direction}{name}"
                    )
        for other in _SCALES:
            if other in row.values and filled(value := row.values[other]):
                self.used.add(other)
                if (first := self.scales.setdefault(other, value)) != value:
                    raise row.error(
                        f"column {other} is {short(value)}, and {short(first)} before: divide the scores by it"
                    )

    def rating(self, row: Row) -> float:
        """Return the number in the column `score`, by default the first of the usual ones; note the others."""
        name = self.score or row.first(SCORES)
        self.pass_over({other: row.values.get(other) for other in SCORES if other != name})
        return self.number(row, name)

    def feedback(self, row: Row) -> float:
        """Return the label of the row, and note scores beside it; `UserError` if two labels contradict each other."""
        self.pass_over({name: row.values.get(name) for name in SCORES})
        names = [name for name in LABELS if name in row.values]
        name, *others = sorted(names, key=lambda name: not filled(inside(row.values[name])))
        value = self.label(row, name)
        for other in others:
            if not self.accept and not math.isnan(value) and WORDS.get(word_of(row.values[other]), value) == -value:
                raise row.error(f"columns {name} and {other} contradict each other: leave one of them out")
        if (against := row.find(THUMBS_DOWN)) is None:
            return value
        down = self.label(row, against)
        if value == down == 1:
            raise row.error(f"columns {name} and {against} are both set: leave one of them out")
        if down == 1:
            return -1.0
        return math.nan if name in _SET and value == -1 else value

    def label(self, row: Row, name: str) -> float:
        """Return +1 for true, 1 and words as up, good, yes; −1 for false, 0, −1, down, bad, no, …; NaN for null.

        Where −1 occurs, 0 could be a reject or no opinion, and a column that holds both is refused, as is every value
        of no known meaning: `UserError`.
        """
        self.used.add(name)
        value = inside(row.values.get(name))
        if value in (None, "", {}, []) or (isinstance(value, float) and math.isnan(value)):
            self.report.labels["null"] = "unlabelled"
            return math.nan
        word = word_of(value)
        if self.accept:
            label = 1.0 if word in map(word_of, self.accept) else -1.0
        elif word in WORDS:
            label = WORDS[word]
        else:
            raise row.error(
                f"expected true, false, 1, 0, -1, up, down or null in column {self.called.get(name, name)}, found "
                f"{short(value)} (words such as good or bad are read too; others: --accept VALUE; columns of numbers: "
                "--score COLUMN)"
            )
        self.report.labels[word] = {1.0: "accept", -1.0: "reject"}.get(label, "unlabelled")
        if {"0", "-1"} <= self.report.labels.keys() and not self.accept:
            raise row.error(f"column {name} holds both 0 and -1: write null where there was no opinion")
        return label
