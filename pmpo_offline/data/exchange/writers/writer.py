"""What every format's module offers: how it writes a dataset, and what a reader of its files must know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pmpo_offline.data.dataset import Dataset


@dataclass(frozen=True)
class Writer:
    """One format."""

    write: Callable[..., None]
    """(folder, dataset, **options): fill the empty folder; `OSError` where the disk refuses."""
    loading: Callable[[Dataset], list[str]]
    """The lines of Python that open the files."""
    note: str
    """How rows and labels are to be read."""
    place: Callable[[Path, Dataset], Path] = lambda directory, dataset: directory
    """The dataset's own folder, given the one that the user chose."""
    data_files: Callable[[Dataset], Mapping[str, str]] = lambda dataset: {}
    """The files of each configuration of Hugging Face's front matter."""
    holds_candidates: bool = True
    left_out: Callable[[Dataset], list[str]] = lambda dataset: []
    """What else has no place in the format."""
    options: tuple[str, ...] = ()
    """What `write` takes beside the dataset."""
