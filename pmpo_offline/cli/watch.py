"""Curves of the metrics that trainings record, drawn in place on the terminal while they train (`--watch`)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.progress import Stages, cut, on_progress

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Console, RenderableType

FILES = ("*.csv", "references/*.csv", "checkpoints/**/*.csv")
"""Where trainings record metrics below the directory of a run, or of a benchmark's results."""
FIRST = ("loss", "rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected", "kl")
"""The metrics that are drawn where there is no room for all."""
BARS = "▁▂▃▄▅▆▇█"


@contextmanager
def watching(directory: Path) -> Iterator[None]:
    """Draw the latest metrics below a directory, and the progress; `UserError` if stderr is no terminal."""
    from rich.console import Console
    from rich.live import Live

    if not sys.stderr.isatty():
        raise UserError("--watch draws on a terminal, and stderr is not one: leave it out and read metrics.csv")
    console, stages, line = Console(stderr=True), Stages(), ""

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal line
        line = f"{stages.update(stage, done, total)} {done}/{total}"

    def drawn() -> RenderableType:
        return draw(directory, line, console)

    with Live(get_renderable=drawn, console=console, refresh_per_second=2), on_progress(progress):
        yield


def draw(directory: Path, line: str, console: Console) -> RenderableType:
    """Return a line a metric of the training that recorded last: its curve, the mean of all runs, and where it ends."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from pmpo_offline.training.tracking import read_metrics

    recorded = _latest(directory)
    table = None if recorded is None else read_metrics(recorded)
    below = Text(cut(line, console.width), style="dim")
    if recorded is None or table is None or table.is_empty():
        return below
    means = table.group_by("step", maintain_order=True).mean().drop("run")
    names = [*(name for name in FIRST if name in means.columns), *(n for n in means.columns[1:] if n not in FIRST)]
    title = recorded.stem if recorded.stem != "metrics" else recorded.parent.name
    heading = Text(cut(f"{title}, update {means['step'][-1]:,}", console.width), style="bold")
    grid = Table.grid(padding=(0, 1))
    width = console.width - max(map(len, names)) - 12
    for name in names[: console.height - 4]:
        grid.add_row(name, Text(sparkline(means[name], width), style="cyan"), Text(f"{means[name][-1]:.4g}"))
    return Group(heading, grid, below)


def sparkline(values: pl.Series, width: int) -> str:
    """Return a curve of at most `width` characters, each the mean of its share of the values.

    It spans their 5th to 95th percentile, so that the first updates do not flatten the rest; a space where none is
    finite.
    """
    import numpy as np

    parts = np.array_split(values.to_numpy(), min(len(values), max(width, 1)))
    finite = [part[np.isfinite(part)] for part in parts]
    means = np.array([part.mean() if len(part) else np.nan for part in finite])
    if np.isnan(means).all():
        return " " * len(means)
    low, high = np.nanpercentile(means, (5, 95))
    level = (means.clip(low, high) - low) / (high - low or 1) * (len(BARS) - 1)
    return "".join(" " if np.isnan(each) else BARS[round(each)] for each in level)


def _latest(directory: Path) -> Path | None:
    """Return the file of metrics that was written last."""
    written = {}
    for path in (path for pattern in FILES for path in directory.glob(pattern)):
        with suppress(OSError):  # removed meanwhile
            written[path] = path.stat().st_mtime
    return max(written, key=written.__getitem__, default=None)
