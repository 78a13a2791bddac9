"""The command `report`, and how `bench` and it print a table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pmpo_offline.cli.console import emit, working
from pmpo_offline.cli.options import Json

if TYPE_CHECKING:
    from pmpo_offline.benchmark import Benchmark


def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Output directory of a benchmark.")],
    json: Json = False,
) -> None:
    """Compute the table again from all raw scores in DIR, rewrite report.md, .json and .png there, and print it."""
    with working():
        from pmpo_offline.benchmark import report_on

        done = report_on(directory)
    show(done, json)


def show(done: Benchmark, as_json: bool) -> None:
    """Print the tables of a benchmark and its failures, which are exit code 1."""
    if as_json:
        emit({"rows": done.rows, "raw": str(done.raw), "report": str(done.report), "failures": done.failures})
    else:
        from rich.console import Console

        from pmpo_offline.benchmark.report import terminal

        # Piped into a file the tables keep their width instead of being folded at 80 columns.
        console = Console(width=None if sys.stdout.isatty() else 200)
        for part in terminal(done.title, done.rows):
            console.print(part, crop=False)
        print(f"report: {done.report}")
    sys.stdout.flush()  # the table comes first, also where both streams go to one file
    for failure in done.failures:
        print(f"error: {failure}", file=sys.stderr)
    if done.failures:
        raise typer.Exit(1)
