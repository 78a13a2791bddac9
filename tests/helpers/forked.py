"""Code in a process of the fork server, as `subprocess.Popen` of an interpreter that need not import anything again."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from pathlib import Path

from helpers.fork_server import reopen_outputs


class Forked:
    """A process that runs `code` with these arguments, environment and working directory.

    For what starting an interpreter is no part of: signals, limits, permissions, two writers at once.
    """

    def __init__(self, context: BaseContext, code: str, *arguments: str | Path, cwd: Path | None = None) -> None:
        (self._out, out), (self._err, err) = (context.Pipe(duplex=False) for _ in range(2))
        about = (code, [*map(str, arguments)], dict(os.environ), str(cwd or Path.cwd()))
        self.process = context.Process(target=_execute, args=(*about, out, err), daemon=True)  # type: ignore[attr-defined]
        self.process.start()
        out.close()
        err.close()
        self.stdout = os.fdopen(os.dup(self._out.fileno()), encoding="utf-8")
        self.stderr = os.fdopen(os.dup(self._err.fileno()), encoding="utf-8")

    def kill(self) -> None:
        """Send it SIGKILL, and wait for its end."""
        self.process.kill()
        self.process.join()

    def communicate(self) -> tuple[str, str]:
        """Wait for its end; return what it has written, which is short."""
        with self.stdout, self.stderr:
            written = self.stdout.read(), self.stderr.read()
        self.process.join()
        return written

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal."""
        code: int | None = self.process.exitcode
        return code


def _execute(
    code: str, arguments: Sequence[str], environment: Mapping[str, str], folder: str, out: Connection, err: Connection
) -> None:
    os.chdir(folder)
    for number, pipe in ((1, out), (2, err)):
        os.dup2(pipe.fileno(), number)
        pipe.close()
    reopen_outputs()
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-c", *arguments]
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
