"""Folders and files that are whole or absent: written beside their place, flushed to the disk, renamed into it at once.

<parent>/.<name>.partial     while it is written; what a killed writer left, the next one removes
<parent>/<name>              the folder; nothing in it changes after the rename
<parent>/.<name>.replaced    for the moment between two renames when a folder is overwritten

A folder is locked itself while something in it changes, by flock, which the kernel releases when the holder dies: a
library such as filelock needs a lock file, which would be left in the folder, counted as content, and impossible in one
that is read-only.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import platform
import re
import shutil
import signal
import stat
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

from pmpo_offline.runtime.errors import PmpoOfflineError, UserError, refusal

_AGAIN = "delete it and run the same command again"
_PARTS = re.compile(r"(\d+)")


@contextmanager
def atomic_directory(directory: Path, marker: str, what: str, overwrite: bool) -> Iterator[Path]:
    """Yield an empty folder to fill, which becomes `directory` when the block ends without an error.

    With `overwrite`, an existing folder is replaced if it holds the file `marker`, as every `what` does. Writers of one
    parent folder wait for each other. Raises `UserError` if another folder is in the way, and `OSError` if the disk
    refuses; then, and after Ctrl-C, everything is as it was.
    """
    partial, replaced = _partial(directory), _replaced(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(directory.parent):
        _tidy(directory)
        _clear_the_way(directory, marker, what, overwrite)
        try:
            partial.mkdir()
            yield partial
            mode = _mode_of_new_files(partial)
            for path in [*partial.rglob("*"), partial]:
                if path.is_file():
                    path.chmod(mode)
                _flush(path)
            if directory.exists():
                directory.rename(replaced)
            partial.rename(directory)
            _flush(directory.parent)
            shutil.rmtree(replaced, ignore_errors=True)
        except BaseException:  # Ctrl-C too
            _tidy(directory)
            raise


def remove_directory(directory: Path) -> None:
    """Remove a folder at once: what is left where this is interrupted is a partial folder; `OSError` if refused."""
    with file_lock(directory.parent):
        _tidy(directory)
        directory.rename(_partial(directory))
        _flush(directory.parent)
        shutil.rmtree(_partial(directory))


def recover(directory: Path) -> None:
    """Bring back a folder that a writer had moved aside to replace it and was killed; wait for a writer at work."""
    if directory.exists() or not (replaced := _replaced(directory)).exists():
        return
    with suppress(OSError), file_lock(directory.parent):
        if not directory.exists():
            replaced.rename(directory)


def moved_aside(names: Collection[str]) -> list[str]:
    """Return the names of folders for `recover` among the names in their parent."""
    kept = [name.removeprefix(".").removesuffix(".replaced") for name in names if name.endswith(".replaced")]
    return [name for name in kept if name not in names]


def _partial(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.partial")


def _replaced(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.replaced")


def _tidy(directory: Path) -> None:
    """Remove what a failed or killed writer left: a partial folder, or a replaced one without a successor."""
    if (partial := _partial(directory)).exists():
        shutil.rmtree(partial)
    if (replaced := _replaced(directory)).exists():
        shutil.rmtree(replaced) if directory.exists() else replaced.rename(directory)


def _clear_the_way(directory: Path, marker: str, what: str, overwrite: bool) -> None:
    is_taken = directory.exists() and not (directory.is_dir() and not any(directory.iterdir()))
    if directory.is_symlink() or (is_taken and not (directory / marker).is_file()):
        raise UserError(f"{directory} exists and is no {what}: move it away, it will not be overwritten")
    if is_taken and not overwrite:
        raise UserError(f"{directory} exists already: use --overwrite to replace it")


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a scratch path beside `path`; it becomes `path`, flushed to the disk, if the block ends without an error.

    Two writers of one file do not disturb each other: the last one wins. Raises `OSError` of `path` if the disk
    refuses; then the file is what it was.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Another ending than the file's, because `glob("*.parquet")` finds hidden files.
    scratch = path.with_name(f".{path.name}.{_writer()}.tmp")
    try:
        mode = _mode_of_new_files(path.parent)
        yield scratch
        scratch.chmod(mode)
        _flush(scratch)
        scratch.replace(path)
    except OSError as error:
        error.filename = str(path)  # not the scratch file
        raise
    finally:
        scratch.unlink(missing_ok=True)


def _mode_of_new_files(folder: Path) -> int:
    """Return the permissions that the umask gives a new file: some libraries write files that only we may read."""
    probe = folder / f".mode.{_writer()}.tmp"
    probe.touch()
    try:
        return stat.S_IMODE(probe.stat().st_mode)
    finally:
        probe.unlink()


def _writer() -> str:
    """Return a name of this thread among those of all machines that share the folder."""
    return f"{platform.node()}-{os.getpid()}-{threading.get_native_id()}"


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Return paths sorted by name, numbers in them by their size: part-2 comes before part-10."""
    return sorted(paths, key=lambda path: [int(part) if part.isdecimal() else part for part in _PARTS.split(str(path))])


def finite(value: Any) -> Any:
    """Return a JSON value with None for every infinite number and NaN, however deep: other programs refuse them."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_text(path: Path, content: str) -> None:
    """Write a UTF-8 file, whole or absent; raises `OSError` if the disk refuses."""
    with atomic_file(path) as scratch:
        scratch.write_text(content, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or absent; raises `OSError` if the disk refuses."""
    write_text(path, json.dumps(finite(content), indent=1, allow_nan=False))


def read_json(path: Path, remedy: str = _AGAIN) -> dict[str, Any]:
    """Read a JSON object; `PmpoOfflineError` with `remedy` at its end if there is none or the file is damaged."""
    try:
        content = from_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise damaged(path, error, remedy) from None
    if not isinstance(content, dict):
        raise damaged(path, "it holds no JSON object", remedy)
    return content


def from_json(content: bytes | str) -> Any:
    """Parse JSON; `ValueError` if it is malformed or nested too deeply for Python's parser."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def from_toml(content: bytes | str) -> dict[str, Any]:
    """Parse TOML; `ValueError` if it is malformed, not UTF-8 or nested too deeply for Python's parser."""
    import tomllib  # here, so that --help does not import it

    try:
        return tomllib.loads(content if isinstance(content, str) else content.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; `UserError` if it is malformed, `OSError` if it cannot be read."""
    try:
        return deepcopy(_parsed(path.read_bytes()))
    except ValueError as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None


_parsed = lru_cache(512)(from_toml)  # by content: one id is found by reading every recipe, and parsing takes the time


def damaged(path: Path, reason: object, remedy: str = _AGAIN) -> PmpoOfflineError:
    """Return the error for a file whose content is not what was written."""
    return PmpoOfflineError(f"{path} is damaged ({reason}): {remedy}")


@contextmanager
def file_lock(folder: Path, *, wait: bool = True) -> Iterator[int]:
    """Hold the lock of a folder, whose descriptor is yielded.

    Raises `BlockingIOError` if another process holds it, without `wait`.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        interruptible()
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except OSError:
            pass  # some network file systems have no locks; renames keep even unlocked writers whole
        yield handle
    finally:
        os.close(handle)


@contextmanager
def locked_folder(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Make a folder, if it is not there, and hold its lock, as `file_lock` does.

    Another process may remove it before it is locked: the lock of a folder that is gone excludes no other process.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)  # not found, as below /proc, is for ever
        with ExitStack() as stack:
            is_there = False
            with suppress(FileNotFoundError):
                handle = stack.enter_context(file_lock(folder, wait=wait))
                is_there = os.path.samestat(os.fstat(handle), folder.stat())
            if is_there:
                yield
                return


@contextmanager
def claim(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the right to make `path`, which other processes may want to make too; yield whether it is held.

    If another process holds it, wait for that to end, or yield False without `wait`. Then look again whether `path` is
    there. A hidden folder beside it is locked, and removed at the end. Raises `PmpoOfflineError` if the disk refuses.
    """
    lock = path.with_name(f".{path.name}.claim")
    with ExitStack() as stack:
        try:
            stack.enter_context(locked_folder(lock, wait=wait))
        except BlockingIOError:
            yield False
            return
        except OSError as error:
            raise PmpoOfflineError(refusal(path.parent, error, "name another folder")) from None
        try:
            yield True
        finally:
            with suppress(OSError):
                lock.rmdir()


def interruptible() -> None:
    """Let Ctrl-C end what this thread is about to wait for.

    Importing polars 2 installs a handler with SA_RESTART: the system call goes on, and a wait for a lock or another
    process would notice Ctrl-C at its end.
    """
    signal.siginterrupt(signal.SIGINT, True)
