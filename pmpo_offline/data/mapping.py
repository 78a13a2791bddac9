"""Files mapped into memory, whose pages are given back: of large tables only what is in use stays resident."""

from __future__ import annotations

import mmap
import resource
from pathlib import Path
from weakref import WeakSet

import pyarrow as pa

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
