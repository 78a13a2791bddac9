"""Figures of experiments with many rows: scores along a swept setting, and datasets pooled into groups."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from pmpo_offline.benchmark.report import error_bar
from pmpo_offline.benchmark.table import Row, runs
from pmpo_offline.evaluation.statistics import Floats, Interval, interval, probability_of_improvement

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Arms = Mapping[str, Mapping[str, Floats]]
"""Scores of training runs, (runs,), by arm and dataset."""


class Look(NamedTuple):
    """How a method is drawn: a marker beside the colour, for readers who cannot tell colours apart."""

    label: str
    colour: str
    marker: str = "o"


@dataclass(frozen=True)
class Pooled:
    """One arm on a group of datasets."""

    iqm: Interval
    """Interquartile mean over the runs of all datasets; its interval resamples each dataset's runs separately."""
    better: dict[str, Interval]
    """By baseline: the probability that a run beats one of the baseline on the same dataset, averaged over datasets."""


def sweep(axes: Axes, rows: Sequence[Row], x: str, look: Look) -> None:
    """Draw the scores of one method against `x`, joined by a line in the order of the rows.

    Args:
        axes: to draw on.
        rows: of the table; marks grow along them, and a policy that collapsed is hollow.
        x: a key of the rows such as "kl", or of their settings such as "beta".
        look: of the method.
    """
    places = [row[x] if x in row else row["settings"][x] for row in rows]
    axes.plot(places, [row["iqm"] for row in rows], color=look.colour, linewidth=1)
    for number, (place, row) in enumerate(zip(places, rows, strict=True)):
        axes.errorbar(
            [place],
            [row["iqm"]],
            yerr=error_bar(row),
            fmt=look.marker,
            color=look.colour,
            markersize=4 + 1.5 * number,
            markerfacecolor="white" if row["collapsed"] else look.colour,
            capsize=2,
            linewidth=0.8,
            label=look.label if number == 0 else None,
        )


def run_scores(raw: pl.DataFrame, arm: pl.Expr) -> dict[str, dict[str, Floats]]:
    """Return the scores of training runs, (runs,), by arm and dataset, both sorted.

    Args:
        raw: raw scores, as `Results.read` returns them.
        arm: the name of a run's arm from the columns of the raw scores.
    """
    found: dict[str, dict[str, Floats]] = {}
    named = runs(raw).with_columns(arm=arm).sort("arm", "dataset", "seed")
    for (name, dataset), mine in named.group_by("arm", "dataset", maintain_order=True):
        found.setdefault(str(name), {})[str(dataset)] = mine["score"].to_numpy()
    return found


def pooled(arms: Arms, datasets: Collection[str], baselines: Sequence[str] = ()) -> dict[str, Pooled]:
    """Summarise arms over a group of datasets; an arm without runs on one of them is left out: it would not compare."""
    group = sorted(datasets)

    def scores(name: str) -> list[Floats]:
        return [arms[name][dataset] for dataset in group]

    return {
        name: Pooled(
            interval(scores(name)),
            {other: probability_of_improvement(scores(name), scores(other)) for other in baselines if other != name},
        )
        for name, mine in arms.items()
        if mine.keys() >= set(group)
    }
