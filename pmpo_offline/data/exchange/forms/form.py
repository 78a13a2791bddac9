"""Forms: how rows of known columns become responses; a source is of the first registered form whose columns it has."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pmpo_offline.data.exchange.forms import FORMS, columns
from pmpo_offline.data.exchange.forms.cells import content_of, filled, first_filled, is_list, is_turn, role_of
from pmpo_offline.data.exchange.forms.columns import LABELS
from pmpo_offline.data.exchange.forms.reading import Reading
from pmpo_offline.data.exchange.forms.row import ENDINGS, Drop, Response, Row
from pmpo_offline.runtime.errors import UserError

_OF_PROMPTS = {*columns.PROMPTS, *columns.ADDED, *columns.SYSTEM, *columns.HISTORY}
_REFERENCES = {"answer", "reply"}
"""Often what is correct, rather than what was answered."""
_TEXTS = {*_OF_PROMPTS, *columns.COMPLETIONS, *columns.CHATS, *columns.SIDES, "completions"} - _REFERENCES
_FEEDBACK = {*LABELS, *columns.THUMBS_DOWN}
_MEANINGFUL = _TEXTS | _FEEDBACK
"""Columns that no form passes over: it reads them, or refuses rows in which they say something else than it reads."""
_FRAMES = (*columns.SYSTEM, *columns.HISTORY)
_VERDICTS = ("accept", "reject", "ignore")
"""Values of Prodigy's column `answer`."""
_IN_TURNS = {"role", "content", "from", "value", "parts", "weight", *ENDINGS}


@dataclass(frozen=True)
class Form:
    """How the rows of a data set become responses."""

    name: str
    """As reports state it."""
    space: str
    """The namespace of the ids that such data get."""
    columns: tuple[str, ...]
    """What every row has; "prompt|instruction" is one column under the first of these names that is there."""
    read: Callable[[Row, Reading], Iterator[Response | Drop]]
    """Yield the responses of a row, or why there is none."""
    example: Mapping[str, Any] | tuple[Mapping[str, Any], ...]
    """A row of this form, or a few, for the help, the tests and the docs."""
    meaning: str
    """What a response is and what its score is, for the docs."""
    card: str = ""
    """Where the schema is documented, or the data sets that have it, for the docs."""
    feedback: str | None = None
    """The column of labels or scores, as one of `columns`; None: they are inside the others, or are implied."""
    scored: bool = False
    """Whether its scores are numbers that need a threshold, rather than yes and no."""
    threshold: str = "q0.5"
    """The threshold of such scores where none is given."""
    score_columns: tuple[str, ...] = ("{}",)
    """The columns that `--score NAME` selects; empty: it is of another form then, or `read` finds the column."""
    takes_score: bool = True
    """Whether rows with `--score NAME` can be of this form."""
    also: tuple[str, ...] = ()
    """Other columns of texts that it reads where they are there; the added ones come with a prompt."""
    responses_a_row: int = 1
    """Responses that are lost with a row that is dropped whole."""
    test: Callable[[Row], bool] = lambda row: True
    """What else its first row must pass."""
    join: Callable[[Iterable[Row]], Iterator[Row]] = iter
    """Make the rows that `read` takes of the source's rows, where those are parts (messages of a tree, say)."""
    names: tuple[str, ...] = ()
    """The names that `columns` have in the source; empty until a first row was seen."""

    @property
    def examples(self) -> tuple[Mapping[str, Any], ...]:
        """The rows of the example."""
        return (self.example,) if isinstance(self.example, Mapping) else self.example

    @property
    def shown(self) -> str:
        """The example as JSON lines."""
        return "\n".join(json.dumps(row, ensure_ascii=False) for row in self.examples)

    @property
    def described(self) -> str:
        """The columns that rows of this form have, for the help and the docs, each by the first of its names."""
        return ", ".join(column.split("|")[0] for column in (*self.columns, self.feedback) if column)

    def bound(self, row: Row, score: str | None) -> Form | None:
        """Return the form with the columns that this first row has, None if the row is of another form.

        Raises `UserError` if it is of this one but for the column of scores that is named.
        """
        needs = [*self.columns, *([self.feedback] if self.feedback and score is None else [])]
        names = [row.find(need.split("|")) for need in needs]
        if None in names or not self.test(row) or not (score is None or self.takes_score):
            return None
        given = [] if score is None else [column.format(score) for column in self.score_columns]
        for column in given:
            row.require(column)
        scored = self.scored or score is not None
        if self.join is not iter:  # its rows have other columns
            return replace(self, columns=(), scored=scored)
        return replace(self, columns=(*needs, *given), names=(*filter(None, names), *given), scored=scored)

    def responses(self, row: Row, reading: Reading) -> Iterator[Response | Drop]:
        """Yield the responses of a row; `UserError` for one of another form, or with a column that is not read."""
        if missing := [name for name, _ in self._named if name not in row.values]:
            raise row.error(
                f"lacks {', '.join(missing)}, which the rows before have ({self.name}): it holds {row.held}; "
                "import files of one form at a time"
            )
        for name, others in self._named:
            if (found := row.find(others)) != name:
                raise row.error(f"holds a column {found}, and the rows before hold {name}: leave one of them out")
        unread = self._unread(row, reading)
        reading.framed |= first_filled(row.values, _FRAMES) is not None
        if self.join is iter and (gone := self._gone(row)):
            yield Drop(f"column {gone} says that the row is not to be used", self._count(row, reading))
            return
        offered = first_filled(row.values, columns.NOT_TEXT)
        unstored = Drop(f"column {offered} is used, which a text has no place for")
        empty = True
        try:
            for response in self.read(row, reading):
                empty = False
                if isinstance(response, Response):
                    reading.tell_apart(row, unread, response)
                yield unstored if offered and isinstance(response, Response) else response
            if empty:
                yield Drop("the row holds no response")
        except Drop as drop:
            yield Drop(drop.reason, max(drop.responses, self.responses_a_row))

    @cached_property
    def _named(self) -> list[tuple[str, tuple[str, ...]]]:
        """Return the names of the columns in the source, each with those of which it is the first."""
        others = [tuple(column.split("|")) for column in self.columns]
        return list(zip(self.names or self.columns, others, strict=True))

    @cached_property
    def _reads(self) -> set[str]:
        """Return the names of the columns that it reads, but for those of a score that is named."""
        reads = {name for name, _ in self._named} | set(self.also)
        if reads & set(columns.PROMPTS):
            reads |= _OF_PROMPTS
        return reads | (_FEEDBACK if self.feedback == "|".join(LABELS) else set())

    def _count(self, row: Row, reading: Reading) -> int:
        """Return how many responses are lost with a row that is not read."""
        with suppress(UserError, Drop):
            found = self.read(row, Reading(reading.score, reading.transcripts, reading.accept, reading.sign))
            return sum(each.responses if isinstance(each, Drop) else 1 for each in found) or 1
        return self.responses_a_row

    def _gone(self, row: Row) -> str | None:
        """Return the column that marks a row as one that is not to be used."""
        if str(row.values.get("status")).lower() in columns.STATES_GONE:
            return "status"
        marks = [name for name in columns.GONE if name in row.values and name not in self._reads]
        return next((name for name in marks if columns.is_set(row.values[name])), None)

    def _unread(self, row: Row, reading: Reading) -> list[str]:
        """Note which columns are not read, and return those that may belong to a plain prompt.

        Raises `UserError` for a column of a known meaning that says something else than those that are read.
        """
        reads = self._reads | _FEEDBACK if reading.score else self._reads
        if row.values.get("answer") in _VERDICTS:
            raise row.error(
                f"column answer says {row.values['answer']}, which is a verdict and no text: add --columns label=answer"
            )
        others = [name for name in row.values if name in _MEANINGFUL and name not in reads]
        for name in [name for name in others if filled(row.values[name])]:
            read = set().union(*(_contents(row, other) for other in reads if other in row.values))
            unlabelled = name in columns.CHATS and "chosen" in reads  # another answer, beside the two that have labels
            if name in LABELS or not _contents(row, name, but_answer=unlabelled) <= read:
                names = ", ".join(sorted(name for name, _ in self._named))
                raise row.error(
                    f"column {name} says something that {names} do not ({self.name}): "
                    "merge it into one of them, or leave it out"
                )
        if self.join is not iter:  # its rows are made of others
            return []
        beside = {*reads, *columns.ABOUT, *columns.GONE, *columns.NOT_TEXT}
        unread = [name for name, value in row.values.items() if name not in beside and filled(value)]
        reading.unread |= set(unread)
        for name in columns.CHATS:
            if name in row.values and is_list(chat := row.value(name)):
                turns = [said for said in chat if isinstance(said, Mapping)]
                reading.unread |= {
                    f"{name}.{key}" for said in turns for key in said.keys() - _IN_TURNS if filled(said[key])
                }
        return unread if reads & set(columns.PROMPTS) else []


def names_of_columns() -> set[str]:
    """Return the names of columns that the forms read."""
    needs = [need for form in FORMS.values() for need in (*form.columns, *form.also, form.feedback) if need]
    shown = {name for form in FORMS.values() for row in form.examples for name in row}
    return shown | {name for need in needs for name in need.split("|")}


def form_of(row: Row, score: str | None) -> Form:
    """Return the form that a data set's first row is of, with this column of scores if one is named.

    Raises `UserError` that says which columns were found and which would be understood.
    """
    for form in FORMS.values():
        if bound := form.bound(row, score):
            return bound
    if score:
        row.require(score)
    if {"actions", "observations"} <= row.values.keys() or {"action", "reward"} <= row.values.keys():
        raise row.error(
            "this is a step or an episode, and they are read from .npz, .hdf5 or .parquet: write one of those"
        )
    name = next((name for name, value in row.values.items() if _holds_object(value)), None)
    inside = f"{name}.0" if name and is_list(row.values[name]) else name
    raise row.error(
        f"not recognised by the columns {row.held}: say what they mean, as in --columns "
        "prompt=question,completion=output,label=verdict, of pairs prompt=question,chosen=better,rejected=worse, "
        "or see the forms in pmpo-offline import --help"
        + (f" (columns inside {name} are called {inside}.NAME)" if inside else "")
    )


def _holds_object(value: Any) -> bool:
    item = value[0] if is_list(value) and value else value
    return isinstance(item, Mapping) and not is_turn(item)


def _contents(row: Row, name: str, *, but_answer: bool = False) -> set[str]:
    """Return the texts of a column: one, or those of a conversation's turns, perhaps without the last answer."""
    value = row.value(name)
    if not is_list(value):
        return {str(value).strip()}
    turns = value[:-1] if but_answer and isinstance(value[-1], Mapping) and role_of(value[-1]) == "assistant" else value
    return {str(content_of(turn)).strip() if isinstance(turn, Mapping) else str(turn) for turn in turns}
