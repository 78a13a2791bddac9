"""Locks between processes: of a folder while something in it changes, and of a path that is to be made.

A folder is locked itself, by flock, which the kernel releases when the holder dies: a library such as filelock needs a
lock file, which would be left in the folder, counted as content, and impossible in one that is read-only.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pmpo_offline.runtime.errors import PmpoOfflineError, refusal


@contextmanager
def file_lock(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a folder; without `wait`, raises `BlockingIOError` if another process holds it."""
    with _locked(os.open(folder, os.O_RDONLY), wait):
        yield


@contextmanager
def claim(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the right to make `path`, which other processes may want to make too; yield whether it is held.

    If another process holds it, wait for that to end, or yield False without `wait`. Then look again whether `path` is
    there. A hidden folder beside it is locked, and removed at the end. Raises `PmpoOfflineError` if the disk refuses.
    """
    lock = path.with_name(f".{path.name}.claim")
    handle = None
    try:
        while handle is None:
            lock.mkdir(parents=True, exist_ok=True)  # not found, as below /proc, is for ever
            with suppress(FileNotFoundError):  # its holder may remove it between these two calls
                handle = os.open(lock, os.O_RDONLY)
    except OSError as error:
        raise PmpoOfflineError(refusal(path.parent, error, "name another folder")) from None
    with ExitStack() as stack:
        try:
            stack.enter_context(_locked(handle, wait))
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            with suppress(OSError):
                lock.rmdir()


@contextmanager
def _locked(handle: int, wait: bool) -> Iterator[None]:
    """Lock an open folder, and close it at the end; `BlockingIOError` if another process holds it, without `wait`."""
    try:
        interruptible()
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except OSError:
            pass  # some network file systems have no locks; renames keep even unlocked writers whole
        yield
    finally:
        os.close(handle)


def interruptible() -> None:
    """Let Ctrl-C end what this thread is about to wait for.

    Importing polars 2 installs a handler with SA_RESTART: the system call goes on, and a wait for a lock or another
    process would notice Ctrl-C at its end.
    """
    signal.siginterrupt(signal.SIGINT, True)
