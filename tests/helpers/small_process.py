"""Looks at HDF5 files from a process as small as a user's, which forks in a millisecond.

`data.opening` forks a child for every file. To fork a process of the tests, which has imported everything that any test
needs, costs five times as much as the look itself: together a sixteenth of the time of all tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from threading import Lock

from pmpo_offline.data import opening

_SERVER = "from helpers.small_process import serve; serve()"


def serve() -> None:
    """Answer every line of stdin, a path, with the error of its examination, or null."""
    for line in sys.stdin:
        error = None
        try:
            opening._examine_in_child.__wrapped__(Path(json.loads(line)), ())
        except ValueError as caught:
            error = str(caught)
        print(json.dumps(error), flush=True)


class _Examiner:
    """Examines files as `forking` does, from a process that starts with the first of them."""

    def __init__(self, forking: Callable[[Path, tuple[int, ...]], None]) -> None:
        self._forking, self._examine = forking, opening.examine
        self._owner, self._lock = os.getpid(), Lock()
        self._server: subprocess.Popen[str] | None = None

    def __call__(self, path: Path, version: tuple[int, ...]) -> None:
        if os.getpid() != self._owner or opening.examine is not self._examine:
            self._forking(path, version)  # from a child of the tests, or in a test of the child itself
            return
        with self._lock:
            if self._server is None:
                self._server = self._start()
            assert self._server.stdin is not None
            assert self._server.stdout is not None
            print(json.dumps(os.path.abspath(path)), file=self._server.stdin, flush=True)  # noqa: PTH100
            error = json.loads(self._server.stdout.readline())
        if error is not None:
            raise ValueError(error)

    def close(self) -> None:
        if self._server is not None:
            self._server.kill()
            self._server.communicate()

    @staticmethod
    def _start() -> subprocess.Popen[str]:
        paths = os.pathsep.join(path for path in sys.path if path)
        return subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": paths},
        )


@contextmanager
def examined_from_a_small_process() -> Iterator[None]:
    """Let `data.opening` examine HDF5 files so; all else of it stays."""
    forking = opening._examine_in_child
    examiner = _Examiner(forking)
    opening._examine_in_child = lru_cache(maxsize=256)(examiner)  # type: ignore[assignment]
    try:
        yield
    finally:
        opening._examine_in_child = forking
        examiner.close()
