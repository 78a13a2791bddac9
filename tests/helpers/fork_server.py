"""The server of `multiprocessing`'s context "forkserver", forked from the tests' process instead of started anew.

Starting it anew would import a second time what collecting the tests has imported: 12 s of a core for all of them.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import NoReturn

import pytest


def start() -> None:
    """Start the server, before the tests do: of the threads that they start, no forked process has any."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(forkserver.util, "spawnv_passfds", _forked)  # type: ignore[attr-defined]
        forkserver.ensure_running()


def _forked(_: str, arguments: Sequence[str], files: Sequence[int]) -> int:
    """Fork a process that runs the code of these arguments of the interpreter, with these files alone."""
    return os.fork() or _serve(arguments[-1], files)


def _serve(code: str, files: Sequence[int]) -> NoReturn:
    try:
        _reset({0, 1, 2, *files})
        exec(code, {})
    finally:
        os._exit(0)


def _reset(files: set[int]) -> None:
    """Undo what pytest, its workers and this module have changed; keep only these files."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in {int(path.name) for path in Path("/dev/fd").iterdir()} - files - {nothing}:
        try:
            os.fstat(number)  # the folder itself is closed by now
        except OSError:
            continue
        os.dup2(nothing, number)  # closed, a number would be given away while objects still have it
    sys.stdin = open(nothing, closefd=False)  # noqa: SIM115
    reopen_outputs()
    forkserver._forkserver._lock = threading.Lock()  # type: ignore[attr-defined]
    gc.freeze()


def reopen_outputs() -> None:
    """Let Python write to the files 1 and 2, whatever they are by now."""
    sys.stdout, sys.stderr = (
        open(number, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
        for number in (1, 2)
    )
