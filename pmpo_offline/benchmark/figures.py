"""Figures over many rows: scores with their intervals, scores along a swept setting, datasets pooled into groups."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from pmpo_offline.benchmark.results import Row, runs
from pmpo_offline.evaluation.statistics import Floats, Interval, bootstrap, probability_of_improvement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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


def intervals(title: str, rows: Sequence[Row]) -> Figure:
    """Return the picture of a table: each row's score with its interval, a colour a condition, controls hollow."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(9, 1.6 + 0.32 * len(rows)), layout="constrained")
    axes = picture.add_subplot()
    conditions = list(dict.fromkeys(condition(row) for row in rows))
    for height, row in enumerate(rows):
        colour = f"C{conditions.index(condition(row)) % 10}"
        fill = "white" if row["shuffled"] else colour
        axes.errorbar(
            [row["iqm"]], [height], xerr=error_bar(row), fmt="o", capsize=3, color=colour, markerfacecolor=fill
        )
    labels = [" ".join(filter(None, (row["algo"], text))) for row, text in zip(rows, varying(rows), strict=True)]
    axes.set_yticks(range(len(rows)), labels)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    metrics = " / ".join(sorted({row["metric"] for row in rows}))
    axes.set_xlabel(f"{metrics}, interquartile mean over runs with 95 % interval".replace("_", " "))
    axes.set_title(title)
    for index, name in enumerate(conditions):
        axes.plot([], [], "o", color=f"C{index % 10}", label=name)
    axes.legend(loc="best", fontsize="small")
    return picture


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


def error_bar(row: Row) -> list[list[float]]:
    """Return the interval of a row's score as matplotlib's `xerr` or `yerr`, (2, 1)."""
    return [[row["iqm"] - row["low"]], [row["high"] - row["iqm"]]]


def condition(row: Row) -> str:
    """Return the data of a row in a few words."""
    share = "as collected" if row["imbalance"] is None else f"{row['imbalance']:g} accepted"
    return f"{row['dataset']}, {share}" + (f", noise {row['noise']:g}" if row["noise"] else "")


def varying(rows: Sequence[Row]) -> list[str]:
    """Return, a row, the settings that distinguish it from the other rows of its algorithm on its condition."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    everything = []
    for row in rows:
        sizes = {"seeds": row["seeds"], "episodes": row["episodes"], "data": row["dataset_sha"][:8]}
        everything.append({**row["settings"], **row["training"], **sizes})
        groups.setdefault((condition(row), row["algo"]), []).append(everything[-1])
    texts = []
    for row, own in zip(rows, everything, strict=True):
        others = groups[condition(row), row["algo"]]
        names = [name for name, value in own.items() if any(other.get(name) != value for other in others)]
        values = (own[name] for name in names)
        shown = (f"{value:g}" if isinstance(value, float) else str(value) for value in values)
        texts.append(" ".join(f"{name}={value}" for name, value in zip(names, shown, strict=True)))
    return texts


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
            bootstrap(scores(name)),
            {other: probability_of_improvement(scores(name), scores(other)) for other in baselines if other != name},
        )
        for name, mine in arms.items()
        if mine.keys() >= set(group)
    }
