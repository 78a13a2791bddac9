"""What the commands print: results on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from pmpo_offline.runtime.json_files import finite
from pmpo_offline.runtime.progress import Progress, on_progress

SECONDS_BETWEEN_LINES = 10.0


@contextlib.contextmanager
def working() -> Iterator[None]:
    """Show progress on stderr while something is being done: bars on a terminal, else a line now and then.

    Whatever prints to stdout meanwhile is sent to stderr, because stdout is for the result (`--json`: one object).
    """
    with contextlib.redirect_stdout(sys.stderr):
        if sys.stderr.isatty():
            with _bars() as callback, on_progress(callback):
                yield
        else:
            with on_progress(_lines()):
                yield


def emit(content: dict[str, Any]) -> None:
    """Print one JSON object on stdout; numbers that JSON does not know (infinite, not a number) become null."""
    print(json.dumps(finite(content), allow_nan=False))


@contextlib.contextmanager
def _bars() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    description = TextColumn("{task.description}", markup=False)
    columns = (description, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks = {}

        def progress(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)
            if done >= total:
                bars.remove_task(tasks.pop(stage))

        yield progress


def _lines() -> Progress:
    due = 0.0

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal due
        if time.monotonic() >= due:
            print(f"{stage}: {done}/{total}", file=sys.stderr, flush=True)
            due = time.monotonic() + SECONDS_BETWEEN_LINES

    return progress
