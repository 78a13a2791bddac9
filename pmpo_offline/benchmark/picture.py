"""The picture of a table, report.png: a panel for each condition, in it every row's score with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING

from pmpo_offline.benchmark.table import CONTROL, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CLONE = "#7d828c"
_COLOURS = [f"C{index}" for index in range(10) if index != 7]
"""Matplotlib's, without its grey."""
_ROW, _PANEL, _FRAME = 0.3, 0.55, 1.0
"""Heights in inches: of a row, of what a panel has beside its rows, and of what the picture has beside its panels."""


def picture(title: str, panels: dict[str, list[tuple[str, Row]]]) -> Figure:
    """Return the picture of a table, given the rows of each condition with their labels.

    A colour is an algorithm; clones are grey, controls hollow. A dashed line, with its interval as a band, is what the
    rows of a panel are compared with: the better filtered clone, else the reference.
    """
    from matplotlib.figure import Figure

    heights = [_ROW * len(rows) + _PANEL for rows in panels.values()]
    figure = Figure(figsize=(9, _FRAME + sum(heights)), layout="constrained")
    axes = figure.subplots(len(panels), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    rows = [row for labelled in panels.values() for _, row in labelled]
    names = dict.fromkeys(_algorithm(row) for row in rows if not _is_clone(row))
    colours = dict(zip(names, cycle(_COLOURS), strict=False))
    for each, (condition, labelled) in zip(axes, panels.items(), strict=True):
        each.set_title(condition, loc="left", fontsize="medium")
        _draw(each, labelled, colours)
    metrics = " / ".join(sorted({row["metric"] for row in rows}))
    axes[-1].set_xlabel(f"{metrics}, interquartile mean over runs with 95 % interval".replace("_", " "))
    figure.suptitle(title, fontweight="bold")
    return figure


def error_bar(row: Row) -> list[list[float]]:
    """Return the interval of a row's score as matplotlib's `xerr` or `yerr`, (2, 1)."""
    return [[row["iqm"] - row["low"]], [row["high"] - row["iqm"]]]


def _draw(axes: Axes, labelled: Sequence[tuple[str, Row]], colours: dict[str, str]) -> None:
    compared = {row["compared"] for _, row in labelled} - {None}
    for height, (_, row) in enumerate(labelled):
        colour = colours.get(_algorithm(row), _CLONE)
        fill = "white" if row["shuffled"] else colour
        axes.errorbar(
            [row["iqm"]], [height], xerr=error_bar(row), fmt="o", capsize=3, color=colour, markerfacecolor=fill
        )
        if row["compared"] is None and row["algo"] in compared:
            axes.axvspan(row["low"], row["high"], color=_CLONE, alpha=0.12, linewidth=0)
            axes.axvline(row["iqm"], color=_CLONE, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(labelled)), [label for label, _ in labelled])
    axes.set_ylim(len(labelled) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _is_clone(row: Row) -> bool:
    return bool(row["reference"] or row["filtered"]) and not row["shuffled"]


def _algorithm(row: Row) -> str:
    """Return the name under which a row and its control share a colour."""
    return str(row["algo"]).removesuffix(CONTROL)
