"""Files mapped into memory, whose pages are given back: of large tables only what is in use stays resident."""

from __future__ import annotations

import io
import math
import mmap
import resource
import tempfile
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

RESIDENT = 512 * 2**20
"""Bytes of mapped files, code libraries included, above which `release_pages` gives them back."""

_MAPPED: WeakSet[mmap.mmap] = WeakSet()
_STATM = Path("/proc/self/statm")


def map_file(path: Path) -> pa.Buffer:
    """Map a file into memory, to read it; the map lives as long as the buffer and its slices.

    Raises `OSError` if it cannot be read, and `ValueError` if it is empty.
    """
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    _MAPPED.add(mapped)
    return pa.py_buffer(mapped)


class Spill:
    """An array that grows by blocks: in an unnamed file of a folder, of which it is a map, or without one in memory."""

    def __init__(self, folder: Path | None) -> None:
        self._file = tempfile.TemporaryFile(dir=folder) if folder else io.BytesIO()  # noqa: SIM115 - closed by `mapped`
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
        if isinstance(self._file, io.BytesIO) or not math.prod(self._shape):
            content: Any = self._file.getvalue() if isinstance(self._file, io.BytesIO) else b""
        else:
            self._file.flush()
            content = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
            _MAPPED.add(content)
        self._file.close()
        return np.frombuffer(content, kind).reshape(self._shape)


def release_pages() -> None:
    """Take the pages of mapped files out of this process's memory if they are more than `RESIDENT` bytes.

    They stay in the system's cache of files while it has room: reading them again is a page fault and no read of the
    disk. Arrays of the files remain valid. Where the system does not say what is resident, nothing is done.
    """
    maps = list(_MAPPED)
    if sum(map(len, maps)) <= RESIDENT or not _STATM.exists():
        return
    if int(_STATM.read_bytes().split()[2]) * resource.getpagesize() > RESIDENT:
        for mapped in maps:
            mapped.madvise(mmap.MADV_DONTNEED)
