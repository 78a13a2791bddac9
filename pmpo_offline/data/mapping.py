"""Tables and arrays in files that are mapped into memory: of large ones only what is in use stays resident.

A table is one Arrow IPC file in one record batch, or several part files of equally many rows, which are its chunks::

    transitions.arrow            up to `PART_BYTES`
    transitions-00000.arrow …    beyond: each but the last holds `rows_of_part` rows

So memory holds one part while a table is written. Arrays that grow large are spilled into unnamed files.

Linux maps up to 2 MiB at the first touch of a page. So random rows of a table that is larger than `RESIDENT` would
map all of it in no time, and be slow: they are read by position (`places`), which maps nothing.
"""

from __future__ import annotations

import mmap
import re
import resource
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any
from weakref import WeakSet, finalize

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pmpo_offline.runtime import progress

PART_BYTES = 256 * 2**20
"""Bytes of a part file, nearly, where all columns have a fixed width."""
_TEXT_BYTES = 64
"""A text in this account: what it really takes differs from row to row, and parts are of equally many rows."""
_PART = re.compile(r"(\w+?)(?:-(\d{5}))?\.arrow", re.ASCII)
ROWS = 1 << 18
"""Rows of a large array that are in use at once."""
SPILLED = 64 * 2**20
"""Bytes of an array above which `Spill` puts it into a file."""
RESIDENT = 640 * 2**20
"""Bytes of mapped files, code libraries included, above which `release_pages` gives them back."""


class Map(mmap.mmap):
    """A map of a file that is open as long as the map lives."""

    file: IO[bytes]


_MAPPED: WeakSet[Map] = WeakSet()
_STATM = Path("/proc/self/statm")
_folder: ContextVar[Path | None] = ContextVar("folder", default=None)


def map_file(path: Path) -> pa.Buffer:
    """Map a file into memory, to read it; the map lives as long as the buffer and its slices.

    Raises `OSError` if it cannot be read, and `ValueError` if it is empty.
    """
    return pa.py_buffer(_mapped(path.open("rb")))


def _mapped(file: IO[bytes]) -> Map:
    try:
        mapped = Map(file.fileno(), 0, access=mmap.ACCESS_READ)
    except BaseException:
        file.close()
        raise
    mapped.file = file
    finalize(mapped, file.close)
    _MAPPED.add(mapped)
    return mapped


def fit() -> bool:
    """Return whether all mapped files may stay resident."""
    return sum(map(len, list(_MAPPED))) <= RESIDENT


def places(arrays: Sequence[NDArray[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Return for each array the descriptor of the mapped file that it is a view of, and its first byte there.

    None if one of them is a view of none, or not contiguous.
    """
    found = [_place(array) for array in arrays]
    if None in found or not all(array.flags.c_contiguous for array in arrays):
        return None
    file, first = np.array(found, np.int64).T
    return file, first


def _place(array: NDArray[Any]) -> tuple[int, int] | None:
    for mapped in list(_MAPPED):
        offset = array.ctypes.data - np.frombuffer(mapped, np.uint8).ctypes.data
        if 0 <= offset < len(mapped):
            return mapped.file.fileno(), offset
    return None


@contextmanager
def spilled(folder: Path) -> Iterator[None]:
    """Put what grows beyond `SPILLED` inside the block into unnamed files of a folder."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


class Spill:
    """An array that grows by blocks: in memory, or in an unnamed file, of which it is a map (`spilled`)."""

    def __init__(self) -> None:
        self._folder = _folder.get()
        self._file: IO[bytes] | None = None
        self._blocks: list[NDArray[Any]] = []
        self._bytes, self._in_memory = 0, self._folder is None
        self.lengths: list[int] = []
        """Rows of every block."""

    def append(self, block: NDArray[Any]) -> None:
        """Add the rows of a block; `ValueError` for another width, and `OSError` if the disk refuses.

        Blocks of several types become one that holds all their values, as in `np.concatenate`.
        """
        if self._file is not None:
            kept = self._blocks[0]
            if block.shape[1:] != kept.shape[1:]:
                raise ValueError(f"expected rows of {kept.dtype}{kept.shape[1:]}, got {block.dtype}{block.shape[1:]}")
            kind = np.result_type(kept.dtype, block.dtype)
            if kind != kept.dtype:
                self._begin_again(kind)
            block = block.astype(kind, copy=False)
        self.lengths.append(len(block) if block.ndim else 1)
        self._bytes += block.nbytes
        if self._file is not None:
            self._write(block)
            return
        self._blocks.append(np.array(block) if self._blocks else block)  # a view would keep what it is a view of
        self._in_memory |= block.dtype.hasobject
        if self._bytes > SPILLED and not self._in_memory:
            assert self._folder is not None
            self._folder.mkdir(parents=True, exist_ok=True)
            whole = np.concatenate(self._blocks)
            self._file, self._blocks = tempfile.TemporaryFile(dir=self._folder), [whole[:0].copy()]  # noqa: SIM115 - `joined`
            self._write(whole)

    def _begin_again(self, kind: np.dtype[Any]) -> None:
        stored, other = self.joined(), Spill()
        other._folder, other._in_memory = self._folder, False
        for rows in slices(len(stored)):
            other.append(stored[rows].astype(kind))
        vars(self).update(vars(other), lengths=self.lengths)

    def _write(self, block: NDArray[Any]) -> None:
        assert self._file is not None
        self._file.write(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
        release_pages()

    def joined(self) -> NDArray[Any]:
        """Return all rows of at least one block; those in a file are read-only, and it is deleted with them."""
        if self._file is None:
            return self._blocks[0] if len(self._blocks) == 1 else np.concatenate(self._blocks)
        self._file.flush()
        kept = self._blocks[0]
        return np.frombuffer(_mapped(self._file), kept.dtype).reshape(sum(self.lengths), *kept.shape[1:])


def gathered(blocks: Iterable[NDArray[Any]]) -> NDArray[Any]:
    """Join blocks of rows, at least one, as `Spill` does."""
    spill = Spill()
    for block in blocks:
        spill.append(block)
    return spill.joined()


def slices(count: int, rows: int | None = None) -> Iterator[slice]:
    """Yield slices of an array of `count` rows, at least one; memory of mapped files is given back in between."""
    rows = rows or ROWS
    for start in range(0, max(count, 1), rows):
        yield slice(start, min(start + rows, count))
        release_pages()


def kept(values: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[Any]:
    """Return the rows (M, …) that a mask (M,) keeps, of an array that may be mapped."""
    return gathered(values[rows][mask[rows]] for rows in slices(len(values)))


def taken(values: NDArray[Any], chosen: NDArray[np.int64]) -> NDArray[Any]:
    """Return these rows, in ascending order, of an array that may be mapped."""

    def within(rows: slice) -> NDArray[np.int64]:
        first, end = np.searchsorted(chosen, [rows.start, rows.stop])
        own: NDArray[np.int64] = chosen[first:end] - rows.start
        return own

    return gathered(values[rows].take(within(rows), 0) for rows in slices(len(values)))


def release_pages() -> None:
    """Take the pages of mapped files out of this process's memory if they are more than `RESIDENT` bytes.

    They stay in the system's cache of files while it has room: reading them again is a page fault and no read of the
    disk. Arrays of the files remain valid. Where the system does not say what is resident, nothing is done.
    """
    if fit() or not _STATM.exists():
        return
    if int(_STATM.read_bytes().split()[2]) * resource.getpagesize() > RESIDENT:
        for mapped in list(_MAPPED):
            mapped.madvise(mmap.MADV_DONTNEED)


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
