"""Rows of text from files: JSON lines, JSON, CSV, Parquet and Arrow, read one after the other.

Nothing is unpickled and no code of a data set is run. Texts are UTF-8, or UTF-16 or -32 as their first bytes say.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

import pyarrow as pa

from pmpo_offline.data.exchange.forms.rows import Row
from pmpo_offline.data.opening import open_parquet
from pmpo_offline.runtime.errors import UserError, reason_of
from pmpo_offline.runtime.files import from_json

KINDS: Mapping[str, tuple[str, ...]] = {
    "Parquet": (".parquet",),
    "Arrow": (".arrow",),
    "JSON lines": (".jsonl", ".jsonl.gz"),
    "CSV": (".csv", ".tsv"),
    "JSON": (".json", ".json.gz"),
}
"""Last comes what also describes data of the other kinds (dataset_info.json, state.json)."""
_BATCH = 1024


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


def rows(path: Path, name: str | None = None) -> Iterator[Row]:
    """Yield the rows of a file, called `name` in messages; `UserError` where it is missing, empty or damaged."""
    kind = kind_of(path)
    if kind is None or not path.is_file():
        raise UserError(f"{path}: there is no such file of text")
    if not path.stat().st_size:
        raise UserError(f"{path} is empty")
    try:
        yield from _READERS[kind](_File(path, name or path.name))
    except UserError:
        raise
    except (OSError, EOFError, ValueError, zlib.error, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read, it is damaged or no {kind} file: {reason_of(error)}") from None


def class_names(features: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the names of the classes of each column that Hugging Face's features call a `ClassLabel`."""
    return {
        column: [str(name) for name in said["names"]]
        for column, said in features.items()
        if isinstance(said, Mapping) and said.get("_type") == "ClassLabel" and said.get("names")
    }


def named(values: dict[str, Any], classes: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return a row's values with the names of classes in place of their numbers; −1 is none."""
    for column, names in classes.items():
        number = values.get(column)
        if isinstance(number, int) and not isinstance(number, bool):
            values[column] = names[number] if 0 <= number < len(names) else None
    return values


def _json_lines(source: _File) -> Iterator[Row]:
    with _opened(source.path) as file:
        lines: Iterable[bytes | str] = file
        if (encoding := _encoding(file)) != "utf-8-sig":
            lines = io.TextIOWrapper(file, encoding, newline="\n")
        for number, line in enumerate(lines, 1):
            place = f"{source.name}, line {number}"
            if line.strip():
                yield _record(_parsed(line, place), place)


def _json(source: _File) -> Iterator[Row]:
    """Yield the items of one list; or the lines, because JSON lines are often called .json."""
    with _opened(source.path) as file:
        encoding = _encoding(file)
        if file.peek(_BATCH).decode(encoding, "ignore").lstrip()[:1] != "[":
            yield from _json_lines(source)
            return
        content = file.read()
        items = _parsed(content if encoding == "utf-8-sig" else content.decode(encoding), source.name)
    for number, item in enumerate(items, 1):
        place = f"{source.name}, item {number}"
        yield _record(item, place)


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file that may be compressed."""
    with path.open("rb") as stored:
        packed = path.name.lower().endswith(".gz")
        yield io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=stored))) if packed else stored


def _encoding(file: io.BufferedReader) -> str:
    """Return the encoding that a file's first bytes show: UTF-8 unless they are of UTF-16 or UTF-32."""
    found = json.detect_encoding(file.peek(4)[:4])
    return "utf-8-sig" if found == "utf-8" else found


def _parsed(content: bytes | str, place: str) -> Any:
    try:
        return json.loads(content if isinstance(content, str) else content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise UserError(f"{place}: not valid UTF-8: convert the file, as in iconv -f latin1 -t utf-8") from None
    except RecursionError:
        raise UserError(f"{place}: nested too deeply") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{place}, character {error.pos}: not valid JSON: {error.msg}") from None


def _record(value: Any, place: str) -> Row:
    if not isinstance(value, dict):
        raise UserError(f"{place}: expected an object with named columns, found a {type(value).__name__}")
    return Row(value, place)


def _csv(source: _File) -> Iterator[Row]:
    with source.path.open("rb") as file:
        encoding = _encoding(file)
        content = file.read()
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"{source.name}, line {line}: not valid {encoding.upper().removesuffix('-SIG')}: convert the file, as in "
            "iconv -f latin1 -t utf-8"
        ) from None
    names, *records = _records(text, source)
    header = _unique([name or "" for name in names], source)
    for number, fields in enumerate(records, 1):
        yield Row(dict(zip(header, fields, strict=True)), f"{source.name}, row {number}")


def _unique(names: list[str], source: _File) -> list[str]:
    """Return the names of columns; `UserError` for two of one name."""
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise UserError(f"{source.path} has several columns called {twice[0]}: rename them, or leave all but one out")
    return names


def _records(text: str, source: _File) -> list[list[str | None]]:
    """Return the header and the records of a CSV, an empty field as None; `UserError` that names the first bad one.

    Fields are separated by what separates the columns' names, and quotes inside quotes are doubled or, as Spark writes
    them, escaped by backslashes.
    """
    separator = max(",;\t", key=text.lstrip("\r\n").partition("\n")[0].count)
    try:
        return _split(text, separator, source)
    except csv.Error as error:
        unescaped = re.sub(r'\\(["\\])', lambda match: {'"': '""'}.get(match[1], match[1]), text)
        if '\\"' in text:
            with suppress(csv.Error):
                return _split(unescaped, separator, source)
        raise ValueError(error) from None


def _split(text: str, separator: str, source: _File) -> list[list[str | None]]:
    found: list[list[str | None]] = []
    limit = csv.field_size_limit(sys.maxsize)
    records = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        for record in records:
            if not record:
                continue
            if found and len(record) != len(found[0]):
                raise UserError(
                    f"{source.name}, row {len(found)} (up to line {records.line_num}) has {len(record)} fields, and "
                    f"the header {len(found[0])}"
                )
            found.append([field or None for field in record])
    except csv.Error as error:
        what = {"unexpected end of data": "a quote that is never closed"}.get(str(error), str(error))
        what = "text after a closing quote" if "expected after" in what else what
        raise csv.Error(f"row {len(found)}, up to line {records.line_num}, has {what}") from None
    finally:
        csv.field_size_limit(limit)
    if not found:
        raise UserError(f"{source.path} is empty")
    return found


def _parquet(source: _File) -> Iterator[Row]:
    with open_parquet(source.path) as file:
        yield from _batches(source, file.iter_batches(_BATCH), file.schema_arrow)


def _arrow(source: _File) -> Iterator[Row]:
    with pa.memory_map(str(source.path)) as file:
        try:
            table = pa.ipc.open_file(file).read_all()
        except pa.ArrowInvalid:  # Hugging Face's own files are streams
            file.seek(0)
            table = pa.ipc.open_stream(file).read_all()
        table.validate(full=True)
        yield from _batches(source, iter(table.to_batches(_BATCH)), table.schema)


def _batches(source: _File, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[Row]:
    said = from_json((schema.metadata or {}).get(b"huggingface", b"{}"))
    classes = class_names(said.get("info", {}).get("features", {}))
    _unique(schema.names, source)
    rows = (values for batch in batches for values in batch.to_pylist())
    for number, values in enumerate(rows, 1):
        yield Row(named(values, classes), f"{source.name}, row {number}")


_READERS: Mapping[str, Callable[[_File], Iterator[Row]]] = {
    "Parquet": _parquet,
    "Arrow": _arrow,
    "JSON lines": _json_lines,
    "CSV": _csv,
    "JSON": _json,
}
