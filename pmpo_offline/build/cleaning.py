"""What killed processes leave behind, and raw content that no dataset is made of any more: found, measured, removed."""

from __future__ import annotations

import os
import platform
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from pmpo_offline import data
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.files import file_lock

_PARTIAL = re.compile(r"\..+\.partial|\..+\.replaced")
_SCRATCH = re.compile(r"\..+\.(.+)-(\d+)-\d+\.tmp|\..+\.(\d+)\.tmp")
"""The scratch file of a machine, a process and a thread (`runtime.files`); of earlier versions, of a process."""
_OLD = 3600.0
"""Seconds after which a scratch file counts as abandoned: its writer may run on another machine of a shared folder."""


@dataclass(frozen=True)
class Leftover:
    """A file or folder that nothing uses."""

    path: Path
    what: str
    bytes: int


def clean(folders: Sequence[Path] = (), *, home: str | Path | None = None, dry_run: bool = False) -> list[Leftover]:
    """Remove what killed processes left, and raw content without a dataset; return it, the largest first.

    Args:
        folders: where to look for unfinished files, beside the home: results and runs.
        home: where datasets are; default `data.home()`.
        dry_run: only find.

    Raises `UserError` for a folder that is not there, and `PmpoOfflineError` if something cannot be removed.
    """
    root = data.home(home)
    if absent := [folder for folder in folders if not folder.is_dir()]:
        raise UserError(f"{absent[0]}: no such folder; name results or runs, or none to clean the datasets' alone")
    found = [*_orphans(root), *(left for folder in dict.fromkeys([root, *folders]) for left in _unfinished(folder))]
    removed = [left for left in found if dry_run or _remove(left.path)]
    return sorted(removed, key=lambda left: -left.bytes)


def _remove(path: Path) -> bool:
    """Remove what is left over; return False where a process has begun to write it, or has removed it, meanwhile."""
    try:
        with ExitStack() as locks:
            locks.enter_context(file_lock(path.parent))  # of a dataset's writer
            if path.is_dir():
                locks.enter_context(file_lock(path, wait=False))  # of a writer of raw content
                shutil.rmtree(path)
            else:
                path.unlink()
    except (BlockingIOError, FileNotFoundError):
        return False
    except OSError as error:
        raise PmpoOfflineError(f"cannot remove {path}: {error.strerror or error}") from None
    return True


def _unfinished(folder: Path) -> Iterator[Leftover]:
    data.stored_ids(folder)  # brings back what a killed overwrite has moved aside
    for place, folders, files in os.walk(folder):
        for name in [name for name in folders if _PARTIAL.fullmatch(name)]:
            folders.remove(name)
            if not _is_locked(Path(place)):
                yield Leftover(Path(place, name), "an unfinished folder", _size(Path(place, name)))
        for name in files:
            path, match = Path(place, name), _SCRATCH.fullmatch(name)
            with suppress(FileNotFoundError):  # its writer has finished it
                if match and not _runs(match) and time.time() - path.stat().st_mtime > _OLD:
                    yield Leftover(path, "an unfinished file", path.stat().st_size)


def _orphans(home: Path) -> Iterator[Leftover]:
    """Find raw content that no stored dataset was made of; it is recorded or read again where it is needed."""
    used: set[str] = set()
    for name in data.stored_ids(home):
        with suppress(PmpoOfflineError):
            metadata = data.read_metadata(data.dataset_path(name, home))
            made_of = metadata.provenance
            used |= {*made_of.hashes.values(), str(made_of.settings.get("raw"))}
    for path in sorted((home / ".raw").glob("*")):
        if path.is_dir() and path.name not in used and not _is_locked(path):
            yield Leftover(path, "raw content that no dataset here is made of", _size(path))


def _is_locked(folder: Path) -> bool:
    """Return whether a process writes in a folder now."""
    try:
        with file_lock(folder, wait=False):
            return False
    except BlockingIOError:
        return True


def _runs(writer: re.Match[str]) -> bool:
    """Return whether the writer of a scratch file runs on this machine."""
    machine, number, older = writer.groups()
    if machine not in (None, platform.node()):
        return False
    try:
        os.kill(int(number or older), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _size(folder: Path) -> int:
    sizes = []
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # its writer has renamed it
            sizes += [path.stat().st_size] if path.is_file() and not path.is_symlink() else []
    return sum(sizes)
