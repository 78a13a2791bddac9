"""Rows of text from files: JSON lines, JSON, CSV, Parquet and Arrow, read one after the other, with names of classes.

Nothing is unpickled and no code of a data set is run. Texts are UTF-8, or UTF-16 or -32 as their first bytes say, and
may be compressed.
"""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from pmpo_offline.data.exchange.forms.classes import classes_of, named
from pmpo_offline.data.exchange.forms.columns import CHATS, COMPLETIONS, PROMPTS, split_named
from pmpo_offline.data.exchange.forms.csv_files import records
from pmpo_offline.data.exchange.forms.row import Row
from pmpo_offline.data.opening import open_parquet, refuse_pointer
from pmpo_offline.runtime.errors import UserError, reason_of
from pmpo_offline.runtime.files import from_json, in_order

KINDS: Mapping[str, tuple[str, ...]] = {
    "Parquet": (".parquet",),
    "Arrow": (".arrow",),
    "JSON lines": (".jsonl", ".ndjson"),
    "CSV": (".csv", ".tsv"),
    "JSON": (".json",),
}
"""Last comes what also describes data of the other kinds (dataset_info.json, state.json)."""
PACKED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
"""Endings of compressed texts."""
_HOLDERS = ("data", "rows", "examples", "records", "instances", "items", "results", "samples", "entries", "dataset")
_OF_TEXT = {*PROMPTS, *COMPLETIONS, "chosen"}
_BATCH = 1024
MOST_FILES = 20_000


class _File(NamedTuple):
    path: Path
    name: str
    """As messages call it."""


def kind_of(path: Path) -> str | None:
    """Return the kind of a file by its name, None for other files."""
    packed = path.suffix.lower() in PACKED
    name = (path.stem if packed else path.name).lower()
    kind = next((kind for kind, suffixes in KINDS.items() if name.endswith(suffixes)), None)
    return None if packed and kind in ("Parquet", "Arrow") else kind


def stem_of(name: str) -> str:
    """Return a file's name without the endings that say what it is."""
    endings = sorted((ending for endings in (*KINDS.values(), PACKED) for ending in endings), key=len)
    for ending in (*PACKED, *endings):
        name = name.removesuffix(ending)
    return name


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the visible files in a folder and below; `UserError` where there are far more than a data set has."""
    seen = 0
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        seen += len(folders) + len(names)
        if seen > MOST_FILES:
            raise UserError(f"{folder} holds more than {MOST_FILES:,} files: give the folder of one data set")
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def found_in(folder: Path) -> list[Path]:
    """Return the files of text in a folder and below, sorted; `UserError` if there are none, or of several kinds."""
    if (folder / "_delta_log").is_dir():
        raise UserError(f"{folder} is a Delta table, whose folder holds deleted rows too: export it as Parquet")
    by_kind: dict[str, list[Path]] = {}
    for path in in_order(files_below(folder)):
        if (kind := kind_of(path)) and path.is_file():
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
        raise UserError(f"{path} {'is no file' if path.exists() else 'does not exist'}")
    if not path.stat().st_size:
        raise UserError(f"{path} is empty")
    refuse_pointer(path)
    try:
        yield from _READERS[kind](_File(path, name or path.name))
    except UserError:
        raise
    except (OSError, EOFError, ValueError, zlib.error, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read, it is damaged or no {kind} file: {reason_of(error)}") from None


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
    """Yield the items of one list, or of those in an object; or the lines: JSON lines are often called .json."""
    with _opened(source.path) as file:
        encoding = _encoding(file)
        if encoding == "utf-8-sig" and _is_line(file.readline()) and file.read(1):
            yield from _json_lines(source)
            return
    with _opened(source.path) as file:
        content = file.read()
    try:
        whole = _parsed(content if encoding == "utf-8-sig" else content.decode(encoding), source.name)
    except UserError:
        if content.decode(encoding, "ignore").lstrip()[:1] == "[":
            raise
        yield from _json_lines(source)
        return
    lists, common = _lists(whole)
    for name, items in lists.items():
        for number, item in enumerate(items, 1):
            row = _record(item, f"{source.name}, {f'{name} ' if name else ''}item {number}")
            split = split_named(name) if len(lists) > 1 else None
            yield row._replace(values={**common, **row.values}, split=split)


def _lists(whole: Any) -> tuple[Mapping[str, Sequence[Any]], Mapping[str, Any]]:
    """Return the lists of rows that JSON holds, by their names, and the values that all rows have in common.

    Rows are in one list, in lists of an object (`data`, or one a split), or as one of pandas' forms has them.
    """
    if isinstance(whole, list):
        return {"": whole}, {}
    if not isinstance(whole, dict):
        return {"": [whole]}, {}
    held = {name: items for name, items in whole.items() if name in _HOLDERS or split_named(name)}
    lists = {name: items for name, items in held.items() if _is_list_of(dict, items)}
    if lists and not whole.keys() & {*COMPLETIONS, *CHATS, "chosen"}:  # else it is a row itself
        return lists, {name: value for name, value in whole.items() if name not in lists}
    return {"": _rows_of_frame(whole) or [whole]}, {}


def _rows_of_frame(whole: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows that pandas wrote by index, by columns or split in both; empty for any other object."""
    values = list(whole.values())
    columns, rows = (whole.get(name, []) for name in ("columns", "data"))
    if _is_list_of(str, columns) and _is_list_of(list, rows):
        if wrong := next((number for number, row in enumerate(rows, 1) if len(row) != len(columns)), None):
            raise ValueError(f"row {wrong} of data has {len(rows[wrong - 1])} values for {len(columns)} columns")
        return [dict(zip(columns, row, strict=True)) for row in rows]
    if _is_list_of(dict, values) and all(name.isdecimal() for name in whole):
        return values
    if _is_list_of(dict, values) and all(name.isdecimal() for name in values[0]) and len({*map(tuple, values)}) == 1:
        values = [list(column.values()) for column in values]
    texts = any(name in _OF_TEXT and _is_list_of(str, column) for name, column in zip(whole, values, strict=True))
    if not (texts and _is_list_of(list, values) and len(set(map(len, values))) == 1):
        return []
    return [dict(zip(whole, row, strict=True)) for row in zip(*values, strict=True)]


def _is_list_of(kind: type, value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, kind) for item in value)


def _is_line(line: bytes) -> bool:
    """Return whether a line is an object of its own."""
    try:
        return isinstance(from_json(line.decode("utf-8-sig")), dict)
    except ValueError:
        return False


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file that may be compressed."""
    if packed := PACKED.get(path.suffix.lower()):
        with pa.input_stream(str(path), compression=packed) as stream:
            yield io.BufferedReader(stream)
        return
    with path.open("rb") as file:
        yield file


def _encoding(file: io.BufferedReader) -> str:
    """Return the encoding that a file's first bytes show: UTF-8 unless they are of UTF-16 or UTF-32."""
    found = json.detect_encoding(file.peek(4)[:4])
    return "utf-8-sig" if found == "utf-8" else found


def _parsed(content: bytes | str, place: str) -> Any:
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=_object)
    except UnicodeDecodeError:
        raise UserError(f"{place}: not valid UTF-8: convert the file, as in iconv -f latin1 -t utf-8") from None
    except RecursionError:
        raise UserError(f"{place}: nested too deeply") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{place}, character {error.pos}: not valid JSON: {error.msg.removesuffix(' at')}") from None
    except KeyError as error:
        raise UserError(f"{place}: holds two values called {error.args[0]}: leave one of them out") from None
    except ValueError as error:  # a number of more digits than Python reads
        raise UserError(f"{place}: {reason_of(error)}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise KeyError(next(name for name in names if names.count(name) > 1))
    return found


def _record(value: Any, place: str) -> Row:
    if not isinstance(value, dict):
        raise UserError(f"{place}: expected an object with named columns, found a {type(value).__name__}")
    if not all(map(str.isascii, value)):  # half of a surrogate pair, which JSON may hold, is in no other text
        value = {name.encode(errors="replace").decode(): each for name, each in value.items()}
    return Row(value, place)


def _csv(source: _File) -> Iterator[Row]:
    with _opened(source.path) as file:
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
    (_, names), *found = records(text, source.name)
    header = _unique([name or "" for name in names], source)
    for line, fields in found:
        yield Row(dict(zip(header, fields, strict=True)), f"{source.name}, line {line}")


def _unique(names: list[str], source: _File) -> list[str]:
    """Return the names of columns; `UserError` for two of one name."""
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        if not twice[0]:
            raise UserError(f"{source.path} has several columns without a name: is its first line the one of names?")
        raise UserError(f"{source.path} has several columns called {twice[0]}: rename them, or leave all but one out")
    return names


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
    classes = classes_of(said.get("info", {}).get("features", {}))
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
