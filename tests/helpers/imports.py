"""Imports of other people's data: what is stored, what is warned of, and what is refused."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pmpo_offline.build import TextOptions, import_text
from pmpo_offline.data import Dataset
from pmpo_offline.data.exchange.forms import Drop, Reading, Response, Row, columns
from pmpo_offline.data.exchange.forms.form import form_of, names_of_columns
from pmpo_offline.runtime.errors import UserError

_STORED = ("id", "task", "format", "overwrite")


def imported(source: Path | str, **asked: Any) -> Dataset:
    """Import texts with options by their names, without the warnings."""
    return warned(source, **asked)[0]


def warned(source: Path | str, **asked: Any) -> tuple[Dataset, list[str]]:
    """Import texts with options by their names; return the dataset, and what was warned of."""
    stored = {name: asked.pop(name) for name in _STORED if name in asked}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = import_text(source, options=TextOptions(**asked), **stored)
    return dataset, [str(each.message) for each in caught]


def refused(read: Callable[..., object], *args: Any, **kwargs: Any) -> str:
    """Return the one line with which a call is refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UserError) as caught:
            read(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def frame(dataset: Dataset) -> pl.DataFrame:
    """Return the responses in the order of the source."""
    return pl.DataFrame(pl.from_arrow(dataset.table)).sort("prompt_id", "response_id")


def labels(dataset: Dataset) -> dict[str, bool | None]:
    """Return the labels by completions without white space around them."""
    texts = dataset.table["completion"].to_pylist()
    return dict(zip((text.strip() for text in texts), dataset.table["label"].to_pylist(), strict=True))


def report(dataset: Dataset) -> dict[str, Any]:
    """Return what became of the source's rows."""
    found = dataset.metadata.provenance.settings["report"]
    assert isinstance(found, dict)
    return found


def responses(
    *rows: dict[str, Any],
    score: str | None = None,
    accept: tuple[str, ...] = (),
    asked: str = "",
    transcripts: bool = True,
) -> tuple[str, list[Any]]:
    """Return the form's name, and of every response (prompt, completion, score), of what is dropped the reason."""
    given = [Row(values, f"rows, line {number}") for number, values in enumerate(rows, 1)]
    names = columns.renaming(given[0], columns.parse(asked.split(",") if asked else []), score, names_of_columns())
    renamed = [columns.renamed(row, names) for row in given]
    form, reading = form_of(renamed[0], score), Reading(score, transcripts, accept)
    return form.name, [_short(each) for row in form.join(renamed) for each in form.responses(row, reading)]


def _short(each: Response | Drop) -> Any:
    if isinstance(each, Drop):
        return (each.reason, each.responses)
    turns = each.prompt if isinstance(each.prompt, str) else [turn.content for turn in each.prompt]
    return (turns, each.completion, None if math.isnan(each.score) else each.score)
