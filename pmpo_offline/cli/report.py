"""The command `report`: compute a benchmark's table again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pmpo_offline.cli.bench import show
from pmpo_offline.cli.console import working
from pmpo_offline.cli.options import Json


def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Output directory of a benchmark.")],
    json: Json = False,
) -> None:
    """Compute the table again from all raw scores in DIR, rewrite report.md, .json and .png there, and print it."""
    with working():
        from pmpo_offline.benchmark import report_on

        done = report_on(directory)
    show(done, json)
