"""What experiments and speed comparisons share: hardware and versions, tables, figures, and how a script is run."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmpo_offline.runtime.machine import processor as processor

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pmpo_offline.evaluation.statistics import Interval

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"

# Okabe and Ito's colours, which colour-blind readers can tell apart.
BLUE, RED, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
BLACK, GREY = "#222222", "#777777"


def machine(*packages: str, **more: Any) -> dict[str, Any]:
    """Return the hardware and the versions that figures hold for; `more` stands between the two."""
    hardware = {"processor": processor(), "cores": os.cpu_count(), **more, "python": platform.python_version()}
    return hardware | {package: version(package) for package in packages}


def versions(*packages: str) -> str:
    """Return the versions of packages, as in `torch 2.13.0, numpy 2.4.6`."""
    return ", ".join(f"{package} {version(package)}" for package in packages)


def hardware(*packages: str) -> str:
    """Return a page's last line: the hardware, one thread of it, and the versions of packages."""
    return f"One thread of {processor()}, {os.cpu_count()} cores, with {versions(*packages)}."


def load() -> float:
    """Return the machine's load over the last minute."""
    return round(os.getloadavg()[0], 1)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], align: str | None = None) -> list[str]:
    """Return the lines of a Markdown table.

    Args:
        header: the titles of the columns.
        rows: the cells.
        align: "l" or "r" a column, the last letter for all that follow; default: all to the left.
    """
    letters = (align or "l").ljust(len(header), (align or "l")[-1])
    rule = "".join("|---:" if letter == "r" else "|---" for letter in letters) + "|"
    return [_line(header).replace("|  |", "| |"), rule, *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def spread(interval: Interval, places: int) -> str:
    """Return an estimate with the ends of its interval."""
    return f"{interval.estimate:.{places}f} ({interval.low:.{places}f} – {interval.high:.{places}f})"


def with_findings(folder: Path, title: str, tables: str) -> str:
    """Return a page: what `findings.md` in the folder says, else the title, and the tables below it."""
    findings = folder / "findings.md"
    text = findings.read_text(encoding="utf-8") if findings.exists() else f"# {title}\n"
    return text.rstrip() + "\n\n" + tables


def save(frame: pl.DataFrame, path: Path) -> None:
    """Write raw results, whole or not at all."""
    from pmpo_offline.runtime.files import atomic_file

    with atomic_file(path) as scratch:
        frame.write_parquet(scratch, compression="zstd")


def publish(stem: Path, found: Mapping[str, Any], page: str) -> None:
    """Print a page, and write it as `<stem>.md` beside the measurements that it was made from, `<stem>.json`."""
    print(page)
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    stem.with_suffix(".md").write_text(page, encoding="utf-8")


def bare(axes: Axes, **grid: Any) -> None:
    """Take the frame away above and on the right, and draw a faint grid."""
    axes.grid(alpha=0.25, **grid)
    axes.spines[["top", "right"]].set_visible(False)


def legend_below(picture: Figure, columns: int, order: Sequence[str] | None = None) -> None:
    """Draw one legend for all axes of a picture, each label once, in the order given or found."""
    found: Mapping[str, Any] = {
        label: handle for axes in picture.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    labels = [label for label in (order or found) if label in found]
    handles = [found[label] for label in labels]
    picture.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, handlelength=3)


def script(main: Callable[..., None]) -> None:
    """Run a function as a command on one thread; an error of the package is one line and its exit code."""
    import torch
    import typer

    from pmpo_offline.runtime.errors import PmpoOfflineError

    torch.set_num_threads(1)
    try:
        typer.run(main)
    except PmpoOfflineError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
