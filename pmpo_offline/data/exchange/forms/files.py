"""Rows of text from files: JSON lines, JSON, CSV, Parquet and Arrow, read one after the other.

Nothing is unpickled and no code of a data set is run.
"""

from __future__ import annotations

import gzip
import json
import re
import textwrap
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pmpo_offline.data.exchange.forms.response import Row
from pmpo_offline.runtime.errors import UserError

KINDS: Mapping[str, tuple[str, ...]] = {
    "Parquet": (".parquet",),
    "Arrow": (".arrow",),
    "JSON lines": (".jsonl", ".jsonl.gz"),
    "CSV": (".csv",),
    "JSON": (".json", ".json.gz"),
}
"""Last comes what also describes data of the other kinds (dataset_info.json, state.json)."""
_BATCH = 1024
_AGAIN = re.compile(r"(.+)_duplicated_\d+")
"""What polars calls a column of a CSV file whose name stood there before."""


class _File(NamedTuple):
    path: Path
    name: str
    """As messages call it."""


def kind_of(path: Path) -> str | None:
    """Return the kind of a file by its name, None for other files."""
    name = path.name.lower()
    return next((kind for kind, suffixes in KINDS.items() if name.endswith(suffixes)), None)


def found_in(folder: Path) -> list[Path]:
    """Return the files of text in a folder and below, sorted; `UserError` if there are none, or of several kinds."""
    by_kind: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.is_file() and (kind := kind_of(path)):
            by_kind.setdefault(kind, []).append(path)
    described = by_kind.pop("JSON", None)
    if not by_kind:
        if described is None:
            known = ", ".join(suffix for suffixes in KINDS.values() for suffix in suffixes)
            raise UserError(f"{folder} holds no files of text: they end in {known}")
        return described
    if len(by_kind) > 1:
        raise UserError(f"{folder} holds {' and '.join(by_kind)} files: give one of them, or a folder of one kind")
    return next(iter(by_kind.values()))


def columns(path: Path) -> list[str]:
    """Return the names of a Parquet or Arrow file's columns, those of the first row of other files."""
    with _readable(path):
        if kind_of(path) == "Parquet":
            return list(pq.read_schema(path).names)
    first = next(rows(path), None)
    return [] if first is None else list(first.values)


def rows(path: Path, name: str | None = None) -> Iterator[Row]:
    """Yield the rows of a file, called `name` in messages; `UserError` where it is missing, empty or damaged."""
    kind = kind_of(path)
    if kind is None or not path.is_file():
        raise UserError(f"{path}: there is no such file of text")
    if not path.stat().st_size:
        raise UserError(f"{path} is empty")
    read = _READERS[kind]
    with _readable(path):
        yield from read(_File(path, name or path.name))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except (OSError, EOFError, ValueError, zlib.error, pa.ArrowException) as error:
        reason = textwrap.shorten(str(error), 120, placeholder=" …") or type(error).__name__
        raise UserError(f"{path} cannot be read, it is damaged or no {kind_of(path)} file: {reason}") from None


def _json_lines(source: _File) -> Iterator[Row]:
    with source.path.open("rb") as stored, _unpacked(stored, source.path) as file:
        for number, line in enumerate(file, 1):
            place = f"{source.name}, line {number}"
            if line.strip():
                yield _record(_parsed(line, place), place)


def _json(source: _File) -> Iterator[Row]:
    """Yield the items of one list, or, as many call their JSON lines .json, the lines."""
    with source.path.open("rb") as stored, _unpacked(stored, source.path) as file:
        start = file.read(_BATCH).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if start != b"[":
        yield from _json_lines(source)
        return
    with source.path.open("rb") as stored, _unpacked(stored, source.path) as file:
        items = _parsed(file.read(), source.name)
    for number, item in enumerate(items, 1):
        yield _record(item, f"{source.name}, item {number}")


def _unpacked(stored: IO[bytes], path: Path) -> IO[bytes]:
    return gzip.GzipFile(fileobj=stored) if path.name.lower().endswith(".gz") else stored  # type: ignore[return-value]


def _parsed(content: bytes, place: str) -> Any:
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise UserError(f"{place}: not valid UTF-8") from None
    except RecursionError:
        raise UserError(f"{place}: nested too deeply") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{place}, character {error.pos}: not valid JSON: {error.msg}") from None


def _record(value: Any, place: str) -> Row:
    if not isinstance(value, dict):
        raise UserError(f"{place}: a {type(value).__name__} where an object with named columns is due")
    return Row(value, place)


def _csv(source: _File) -> Iterator[Row]:
    import polars as pl

    try:
        frame = pl.read_csv(source.path, infer_schema=False)  # what labels and scores mean is not for a guess
    except pl.exceptions.NoDataError:
        raise UserError(f"{source.path} is empty") from None
    except pl.exceptions.PolarsError as error:
        raise ValueError(str(error).split("\n\n")[0]) from None  # what follows is advice to who calls polars
    if twice := [name for name in frame.columns if _AGAIN.fullmatch(name)]:
        name = _AGAIN.sub(r"\1", twice[0])
        raise UserError(f"{source.path} has several columns called {name}: rename them, or leave all but one out")
    for number, values in enumerate(frame.iter_rows(named=True), 1):
        yield Row(values, f"{source.name}, row {number}")


def _parquet(source: _File) -> Iterator[Row]:
    with pq.ParquetFile(source.path) as file:
        yield from _batches(source, file.iter_batches(_BATCH), file.metadata.num_rows)


def _arrow(source: _File) -> Iterator[Row]:
    with pa.memory_map(str(source.path)) as stored:
        try:
            table = pa.ipc.open_file(stored).read_all()
        except pa.ArrowInvalid:  # Hugging Face's own files are streams
            stored.seek(0)
            table = pa.ipc.open_stream(stored).read_all()
        yield from _batches(source, iter(table.to_batches(_BATCH)), table.num_rows)


def _batches(source: _File, batches: Iterator[pa.RecordBatch], total: int) -> Iterator[Row]:
    number = 0
    for batch in batches:
        for values in batch.to_pylist():
            number += 1
            yield Row(values, f"{source.name}, row {number}")


_READERS: Mapping[str, Callable[[_File], Iterator[Row]]] = {
    "Parquet": _parquet,
    "Arrow": _arrow,
    "JSON lines": _json_lines,
    "CSV": _csv,
    "JSON": _json,
}
