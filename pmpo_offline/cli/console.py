"""Input and output that the commands share: results on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.files import finite
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


def parse_value(text: str) -> Any:
    """Return a number or a truth value as TOML or people write it (.5), else the text itself."""
    text = text.strip()
    with contextlib.suppress(tomllib.TOMLDecodeError):
        parsed = tomllib.loads(f"value = {text}")["value"]
        if isinstance(parsed, bool | int | float):
            return parsed
    try:
        return float(text)
    except ValueError:
        return text


def assignments(options: list[str] | None, example: str) -> dict[str, Any]:
    """Return the settings of repeated options `--set SETTING=VALUE`; `UserError` if one is malformed or given twice."""
    settings: dict[str, Any] = {}
    for option in options or []:
        setting, equals, text = option.partition("=")
        if not (setting and equals and text):
            raise UserError(f"--set {option}: write SETTING=VALUE, as in {example}")
        if setting in settings:
            raise UserError(f"--set {option}: {setting} is given twice")
        settings[setting] = parse_value(text)
    return settings


def short(value: Any) -> str:
    """Return a value as people read it: numbers with four digits, a dash for None."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:.4g}"
    return "–" if value is None else str(value)


def print_lines(lines: Mapping[str, Any]) -> None:
    """Print names and values (strings or rich texts) in two columns on stdout."""
    from rich.console import Console
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for name, value in lines.items():
        table.add_row(name, value)
    # Piped into a file it is not folded at 80 columns.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


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
