"""Files mapped into memory, whose pages are given back: of large tables only what is in use stays resident.

Linux maps up to 2 MiB at the first touch of a page. So random rows of a table that is larger than `RESIDENT` would
map all of it in no time, and be slow: they are read by position (`place`), which maps nothing.
"""

from __future__ import annotations

import io
import math
import mmap
import resource
import tempfile
from pathlib import Path
from typing import Any, BinaryIO
from weakref import WeakSet

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

RESIDENT = 768 * 2**20
"""Bytes of mapped files, code libraries included, above which `release_pages` gives them back."""


class Map(mmap.mmap):
    """A map of a file that is open as long as the map lives."""

    file: BinaryIO


_MAPPED: WeakSet[Map] = WeakSet()
_STATM = Path("/proc/self/statm")


def map_file(path: Path) -> pa.Buffer:
    """Map a file into memory, to read it; the map lives as long as the buffer and its slices.

    Raises `OSError` if it cannot be read, and `ValueError` if it is empty.
    """
    return pa.py_buffer(_mapped(path.open("rb")))


def _mapped(file: BinaryIO) -> Map:
    try:
        mapped = Map(file.fileno(), 0, access=mmap.ACCESS_READ)
    except BaseException:
        file.close()
        raise
    mapped.file = file
    _MAPPED.add(mapped)
    return mapped


def fit() -> bool:
    """Return whether all mapped files may stay resident."""
    return sum(map(len, list(_MAPPED))) <= RESIDENT


def place(array: NDArray[Any]) -> tuple[int, int] | None:
    """Return the descriptor of the mapped file that an array is a view of, and its first byte there; None of others."""
    for mapped in list(_MAPPED):
        offset = array.ctypes.data - np.frombuffer(mapped, np.uint8).ctypes.data
        if 0 <= offset < len(mapped):
            return mapped.file.fileno(), offset
    return None


class Spill:
    """An array that grows by blocks: in an unnamed file of a folder, of which it is a map, or without one in memory."""

    def __init__(self, folder: Path | None) -> None:
        self._file: Any = tempfile.TemporaryFile(dir=folder) if folder else io.BytesIO()  # noqa: SIM115 - see `mapped`
        self._kind: np.dtype[Any] | None = None
        self._shape: tuple[int, ...] = (0,)

    def append(self, block: NDArray[Any]) -> None:
        """Add the rows of a block; `ValueError` for another type or width, and `OSError` if the disk refuses."""
        if self._kind is not None and (block.dtype, block.shape[1:]) != (self._kind, self._shape[1:]):
            raise ValueError(f"expected rows of {self._kind}{self._shape[1:]}, got {block.dtype}{block.shape[1:]}")
        self._kind, self._shape = block.dtype, (self._shape[0] + len(block), *block.shape[1:])
        self._file.write(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)

    def mapped(self) -> NDArray[Any]:
        """Return all rows, read-only; the file is deleted when they are."""
        kind = self._kind or np.dtype(np.float32)
        if isinstance(self._file, io.BytesIO):
            content: Any = self._file.getvalue()
        else:
            self._file.flush()
            content = _mapped(self._file) if math.prod(self._shape) else b""
        return np.frombuffer(content, kind).reshape(self._shape)


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
