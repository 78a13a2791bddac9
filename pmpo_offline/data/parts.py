"""Arrow files of a table: one IPC file in one record batch, or several part files of equally many rows.

    transitions.arrow            up to `PART_BYTES`
    transitions-00000.arrow …    beyond: each but the last holds `rows_of_part` rows

A memory map of the files is the table; parts are its chunks. So memory holds one part while a table is written.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow as pa

from pmpo_offline.data.mapping import map_file, release_pages
from pmpo_offline.runtime import progress

PART_BYTES = 256 * 2**20
"""Bytes of a part file, nearly, where all columns have a fixed width."""
_TEXT_BYTES = 64
"""A text in this account: what it really takes differs from row to row, and parts are of equally many rows."""
_PART = re.compile(r"(\w+?)(?:-(\d{5}))?\.arrow", re.ASCII)


def rows_of_part(schema: pa.Schema) -> int:
    """Return how many rows of this schema one file holds at most."""
    return max(1, PART_BYTES // sum(_width(kind) for kind in schema.types))


def _width(kind: pa.DataType) -> int:
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size * _width(kind.value_type))
    return _TEXT_BYTES if pa.types.is_string(kind) else max(1, int(kind.bit_width) // 8)


def write_parts(folder: Path, name: str, table: pa.Table) -> None:
    """Write a table to `folder`; raises `OSError` where the disk refuses."""
    most = rows_of_part(table.schema)
    count = max(1, -(-table.num_rows // most))
    for part in range(count):
        path = folder / (f"{name}-{part:05d}.arrow" if count > 1 else f"{name}.arrow")
        rows = table.slice(part * most, most).combine_chunks()
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(rows, max_chunksize=max(1, rows.num_rows))
        release_pages()
        if count > 1:
            progress.report(f"write {name}", part + 1, count)


def read_parts(folder: Path, files: Collection[str]) -> dict[str, pa.Table]:
    """Map the Arrow files among `files` into memory and return their tables by name.

    Raises `ValueError` for files that are not all the parts of a table, and what `read_arrow` raises.
    """
    return {name: _joined([read_arrow(folder / path) for path in paths]) for name, paths in _tables(files)}


def read_arrow(path: Path) -> pa.Table:
    """Map an Arrow file into memory and return its table, whose buffers are as long as its rows need.

    Raises `pa.ArrowException`, `ValueError` or `OSError` for a damaged file. Values are not read, but for those of
    texts, of which a wrong offset would end the process.
    """
    table = pa.ipc.open_file(map_file(path)).read_all()
    table.validate()
    for name, kind in zip(table.schema.names, table.schema.types, strict=True):  # names are decoded here
        if pa.types.is_string(kind):
            table.column(name).validate(full=True)
    return table


def table_files(tables: Collection[str], files: Collection[str]) -> dict[str, str]:
    """Return for each of these tables its file, or a pattern that matches all its parts and no other table's."""
    return {name: f"{name}-*.arrow" if f"{name}-00000.arrow" in files else f"{name}.arrow" for name in tables}


def _joined(parts: list[pa.Table]) -> pa.Table:
    if any(not part.schema.equals(parts[0].schema) for part in parts[1:]):
        raise ValueError("the part files of a table have different columns")
    return parts[0] if len(parts) == 1 else pa.concat_tables(parts)


def _tables(files: Collection[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of every table with its files in order."""
    found: dict[str, list[str]] = {}
    for path in sorted(files):
        if match := _PART.fullmatch(path):
            found.setdefault(match[1], []).append(path)
    for name, paths in found.items():
        numbered = [f"{name}-{part:05d}.arrow" for part in range(len(paths))]
        if paths not in ([f"{name}.arrow"], numbered):
            raise ValueError(f"the files of {name} are {', '.join(paths)}, not one or parts from 00000 on")
        yield name, paths
