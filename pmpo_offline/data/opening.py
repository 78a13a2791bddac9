"""Opening files that may be damaged or hostile: HDF5 and Parquet, ours and those of other libraries.

What a file declares is compared with its size before memory is allocated for it. An HDF5 file can name other files of
this machine (external links and storage, virtual datasets): such files are refused, and so are soft links. A damaged
one can crash the HDF5 library or keep it busy for ever: `open_hdf5` lets a child process look at the file first.
"""

from __future__ import annotations

import math
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import h5py
import pyarrow.parquet as pq

from pmpo_offline.runtime.arrays import DENSEST
from pmpo_offline.runtime.errors import UserError, reason_of
from pmpo_offline.runtime.hashing import hash_file

SECONDS = 5
"""Of computing (a slow disk does not count) that a look at any HDF5 file may take, and one more a MiB of it."""
_POINTER = 1024
"""Bytes that a pointer of Git LFS never reaches."""
_SMALL = 2**20
"""Bytes that any file may declare, whatever its size."""


def refuse_pointer(path: Path) -> None:
    """Raise `UserError` for the pointer that Git LFS leaves in the place of a file that was not downloaded."""
    if path.stat().st_size < _POINTER:
        with path.open("rb") as file:
            if file.read(40).startswith(b"version https://git-lfs"):
                raise UserError(f"{path} is a pointer of Git LFS and no data: get the file itself, with git lfs pull")


@contextmanager
def open_hdf5(path: Path, sha256: str | None = None) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading.

    Args:
        path: of the file.
        sha256: of its content, where that is known: it is compared before the file is parsed, and no process is needed.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not of this hash, reaches outside itself, declares more than it holds, or breaks the library.
    """
    found = path.stat()
    refuse_pointer(path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(f"{path} is no file")
    if sha256 is None:
        _examine_in_child(path, (found.st_ino, found.st_size, found.st_mtime_ns))
    elif hash_file(path) != sha256:
        raise ValueError(f"{path.name}: edited after it was written (its sha256 differs)")
    with h5py.File(path, "r") as file:
        if sha256 is not None and (objection := examine(file)):
            raise ValueError(f"{path.name}: {objection}")
        yield file


def examine(file: h5py.File) -> str | None:
    """Return why a file is refused: it reaches outside itself, or declares more than it holds; None if it is sound."""
    seen, waiting = set(), [("", file.id)]
    while waiting:
        where, parent = waiting.pop()
        for name in parent:
            here = f"{where}/{name.decode(errors='replace')}"
            if parent.links.get_info(name).type != h5py.h5l.TYPE_HARD:
                return f"{here} is a link to another place: copy its target into the file"
            child = h5py.h5o.open(parent, name)
            _read_attributes(child)
            if isinstance(child, h5py.h5d.DatasetID):
                if objection := _objection(child):
                    return f"{here} {objection}"
            elif isinstance(child, h5py.h5g.GroupID):
                address = h5py.h5o.get_info(child).addr
                if address not in seen:  # hard links may form circles
                    seen.add(address)
                    waiting.append((here, child))
    return None


def _objection(dataset: h5py.h5d.DatasetID) -> str | None:
    made = dataset.get_create_plist()
    if made.get_layout() == h5py.h5d.VIRTUAL or made.get_external_count():
        return "lies in another file: copy its values into this one"
    kind, stored = dataset.get_type(), dataset.get_storage_size()
    declared = math.prod(dataset.shape) * kind.get_size()
    chunk = 0
    if made.get_layout() == h5py.h5d.CHUNKED:
        chunk = math.prod(made.get_chunk()) * kind.get_size()
        dataset.get_num_chunks()  # walks the index of the chunks, in which damage shows
    if max(declared, chunk) > DENSEST * stored + _SMALL:
        return f"declares {max(declared, chunk):,} bytes and holds {stored:,}"
    if kind.get_class() in (h5py.h5t.STRING, h5py.h5t.VLEN):
        h5py.Dataset(dataset)[()]  # texts lie elsewhere in the file
    return None


def _read_attributes(item: h5py.h5d.ObjectID) -> None:
    for index in range(h5py.h5a.get_num_attrs(item)):
        h5py.h5a.open(item, index=index)


@lru_cache(maxsize=256)
def _examine_in_child(path: Path, version: tuple[int, ...]) -> None:
    """Examine a file in a child process, which is killed if it takes far longer than any sound file needs.

    A sound file is examined once: its arrays are read one after another. The child is forked, which takes milliseconds;
    h5py holds its own lock meanwhile.
    """
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            seconds = SECONDS + path.stat().st_size // 2**20
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            try:
                with h5py.File(path, "r") as file:
                    reason = examine(file) or ""
            except Exception as error:
                reason = reason_of(error)
            os.write(theirs, reason.encode(errors="replace")[:4096])
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        reason = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        reason = "the HDF5 library does not survive it"
    if reason:
        raise ValueError(f"{path.name}: {reason}")


@contextmanager
def open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file; `ValueError` if it declares more rows than a file of its size can hold."""
    refuse_pointer(path)
    with pq.ParquetFile(path) as file:
        rows, size = file.metadata.num_rows, path.stat().st_size
        if not 0 <= rows <= DENSEST * size:
            raise ValueError(f"it declares {rows:,} rows in {size:,} bytes")
        yield file
