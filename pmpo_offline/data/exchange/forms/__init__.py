"""Readers of other people's texts: what is named becomes rows, and a row becomes responses, in one of several forms."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from pmpo_offline.data.exchange.forms import files, hub, movie_reviews
from pmpo_offline.data.exchange.forms.registry import Form, form_of
from pmpo_offline.data.exchange.forms.response import Drop, Message, Reading, Response, Row
from pmpo_offline.data.exchange.forms.source import TextSource, of_files
from pmpo_offline.data.exchange.readers import minari
from pmpo_offline.data.exchange.readers.flat import SUFFIXES


def is_text(name: str) -> bool:
    """Return whether a name stands for texts, rather than for trajectories (or for nothing at all)."""
    if name == movie_reviews.NAME or name.startswith("hf:"):
        return True
    path = Path(name).expanduser()
    if path.is_dir():
        if minari.data_folder(path):
            return False
        arrays = [suffix for suffix in SUFFIXES if suffix != ".parquet"]
        if any(next(path.glob(f"*{suffix}"), None) for suffix in arrays):
            return False
        tables = sorted(path.rglob("*.parquet"))
        if tables:
            return not _holds_steps(tables[0])
        return any(files.kind_of(each) for each in path.rglob("*"))
    if path.suffix == ".parquet" and path.is_file():
        return not _holds_steps(path)
    return files.kind_of(path) not in (None, "Parquet")


def open_text(name: str) -> TextSource:
    """Return the texts under a name: `hf:NAME`, `movie-reviews`, or the path of a file or a folder of files.

    Raises `UserError` where there is nothing that can be read here.
    """
    if name == movie_reviews.NAME:
        return movie_reviews.of_movie_reviews()
    if name.startswith("hf:"):
        return hub.of_hub(name.removeprefix("hf:"))
    return of_files(Path(name).expanduser())


def _holds_steps(path: Path) -> bool:
    """Return whether a Parquet file holds steps of episodes; one that cannot be read is left to the readers of text."""
    try:
        names = set(pq.read_schema(path).names)
    except (OSError, ValueError):  # what Arrow raises is one of them
        return False
    return bool(names & {"observation", "observations", "action", "actions", "is_first", "is_last", "is_terminal"})


__all__ = [
    "Drop",
    "Form",
    "Message",
    "Reading",
    "Response",
    "Row",
    "TextSource",
    "form_of",
    "is_text",
    "open_text",
]
