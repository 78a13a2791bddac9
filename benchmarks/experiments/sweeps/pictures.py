"""The pictures of the sweeps on bandits."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.experiments import shared
from benchmarks.experiments.labellings import FRACTIONS, RATES, WEIGHTS
from benchmarks.experiments.margins import t_interval
from benchmarks.experiments.shared import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY

LOOKS = {
    "bc-accepted": (GREY, "--"),
    "bc-unrejected": (BLACK, "--"),
    "bc": (GREY, ":"),
    "PMPO AR": (BLUE, "-"),
    "PMPO R": (RED, "-"),
    "KTO": (GREEN, "-"),
    "KTO, unlabelled = good": (GREEN, ":"),
    "BCO": (ORANGE, "-"),
    "DPO": (PURPLE, "-"),
    "MPO*": (SKY, "-"),
}
SHARE_COLOURS = {0.1: BLUE, 0.5: ORANGE, 0.9: GREEN}
LEAST = -60.0
"""Scores below this, of policies that ran away, are drawn there."""


def curve(axes: Axes, part: pl.DataFrame, x: str, colour: str, style: str = "-", label: str | None = None) -> None:
    """Draw the mean score against a column, with its interval as a band."""
    places, found = [], []
    for (place,), runs in part.sort(x).group_by(x, maintain_order=True):
        places.append(float(place))  # type: ignore[arg-type]
        found.append(t_interval(runs["score"].clip(LEAST, None)))
    axes.plot(places, [each.estimate for each in found], style, color=colour, marker=".", markersize=4, label=label)
    axes.fill_between(places, [i.low for i in found], [i.high for i in found], color=colour, alpha=0.15, linewidth=0)


def beta_picture(raw: pl.DataFrame, filtered: Mapping[str, float]) -> Figure:
    """Return score against β in multiples of the bound over outcomes, with the other two thresholds."""
    functions = raw["function"].unique(maintain_order=True).to_list()
    columns = list(itertools.product((5, 1), ("PMPO AR", "PMPO R")))
    figure = Figure(figsize=(12, 2.6 * len(functions) + 0.9), layout="constrained")
    grid = figure.subplots(len(functions), len(columns), sharex=True, sharey=True, squeeze=False)
    for axes_row, function in zip(grid, functions, strict=True):
        for axes, (components, arm) in zip(axes_row, columns, strict=True):
            part = raw.filter(
                (pl.col("function") == function) & (pl.col("components") == components) & (pl.col("arm") == arm)
            )
            axes.axvline(1, color=BLACK, linewidth=1.2, label="bound over outcomes")
            axes.axhline(filtered[function], color=GREY, linewidth=1, label="clone of the accepts")
            for share, colour in SHARE_COLOURS.items():
                mine = part.filter(pl.col("share") == share)
                curve(axes, mine, "multiple", colour, label=f"{100 * share:g} % accepted")
                for kind, style in (("gaussian", ":"), ("collapse", "--")):
                    axes.axvline(
                        max(float(mine[f"{kind} {arm.split()[-1]}"].mean()), 1e-3),  # type: ignore[arg-type]
                        color=colour, linestyle=style, linewidth=1.2,
                    )  # fmt: skip
            axes.plot([], [], ":", color=BLACK, label="bound for a Gaussian (none: 0)")
            axes.plot([], [], "--", color=BLACK, label="collapse of a table (none: 0)")
            axes.set_xscale("log")
            axes.set(ylim=(LEAST - 5, 102), xlim=(0.8 * min(raw["multiple"]), 1.25 * max(raw["multiple"])))
            shared.bare(axes)
            axes.set_title(f"{function}, {'five Gaussians' if components == 5 else 'one Gaussian'}, {arm}", fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel("β / bound over outcomes", fontsize=9)
    figure.supylabel(f"score (below {LEAST:g}: drawn there)", fontsize=9)
    shared.legend_below(figure, 4)
    return figure


def alpha_picture(raw: pl.DataFrame) -> Figure:
    """Return score against α, a panel a bandit and multiple."""
    columns = list(itertools.product(raw["function"].unique(maintain_order=True).to_list(), (0.5, 1.05)))
    figure = Figure(figsize=(3.4 * len(columns) + 0.5, 3.6), layout="constrained")
    for axes, (function, multiple) in zip(figure.subplots(1, len(columns), sharey=True), columns, strict=True):
        for (share, colour), (normalize, style) in itertools.product(
            SHARE_COLOURS.items(), (("joint", "-"), ("set", ":"))
        ):
            part = raw.filter(
                (pl.col("function") == function) & (pl.col("multiple") == multiple) & (pl.col("share") == share)
                & (pl.col("normalize") == normalize)
            )  # fmt: skip
            curve(axes, part, "alpha", colour, style, f"{100 * share:g} % accepted, {normalize}")
        axes.set_title(f"{function}, β = {multiple:g} × its bound", fontsize=9)
        axes.set_ylim(LEAST - 5, 102)
        axes.set_xlabel("α")
        shared.bare(axes)
    figure.axes[0].set_ylabel("score")
    shared.legend_below(figure, 3)
    return figure


def weight_picture(table: pl.DataFrame) -> Figure:
    """Return score against share for each normalisation, at its one β."""
    columns = table.select("function", "kind").unique(maintain_order=True).sort("function", "kind").rows()
    figure = Figure(figsize=(3.4 * len(columns) + 0.5, 3.6), layout="constrained")
    grid = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axes, (function, kind) in zip(grid, columns, strict=True):
        for weight, colour in zip(WEIGHTS, (BLUE, ORANGE, GREEN), strict=True):
            part = table.filter(
                (pl.col("function") == function) & (pl.col("kind") == kind) & (pl.col("weight") == weight)
            )
            curve(axes, part, "share", colour, "--" if weight == "set" else "-", weight)
        axes.set_title(f"{function}, imbalance by {kind}", fontsize=9)
        axes.set_ylim(LEAST - 5, 102)
        axes.set_xlabel("accepted share of the labels")
        shared.bare(axes)
    grid[0].set_ylabel("score at the one β")
    shared.legend_below(figure, 3)
    return figure


def labels_picture(raw: pl.DataFrame) -> Figure:
    """Return score against the share of rows that keep their labels."""
    functions = raw["function"].unique(maintain_order=True).to_list()
    figure = Figure(figsize=(max(8.0, 4.6 * len(functions)), 4.4), layout="constrained")
    for axes, function in zip(figure.subplots(1, len(functions), squeeze=False)[0], functions, strict=True):
        for arm, (colour, style) in LOOKS.items():
            part = raw.filter((pl.col("function") == function) & (pl.col("arm") == arm))
            curve(axes, part, "coverage", colour, style, arm)
        axes.set_xscale("log")
        axes.set_xticks(FRACTIONS, [f"{100 * each:g}" for each in FRACTIONS])
        axes.set_xlabel("labels, % of 20,000 rows")
        axes.set_ylim(0, 102)
        axes.set_title(function, fontsize=10)
        shared.bare(axes)
    figure.axes[0].set_ylabel("score")
    shared.legend_below(figure, 5)
    return figure


def flips_picture(raw: pl.DataFrame) -> Figure:
    """Return score against the rate of wrong labels; solid lines are de-biased."""
    functions = raw["function"].unique(maintain_order=True).to_list()
    figure = Figure(figsize=(max(8.0, 4.6 * len(functions)), 4.4), layout="constrained")
    drawn = {
        "PMPO AR": ('"set"', BLUE), "PMPO R": ("beta", RED), "KTO": ("beta", GREEN), "BCO": ("beta", ORANGE),
        "bc-accepted": ("", GREY),
    }  # fmt: skip
    for axes, function in zip(figure.subplots(1, len(functions), squeeze=False)[0], functions, strict=True):
        for arm, (holds, colour) in drawn.items():
            part = raw.filter((pl.col("function") == function) & (pl.col("arm") == arm))
            part = part.filter(pl.col("setting").str.contains(holds, literal=True))
            if arm == "PMPO AR":
                part = part.filter(pl.col("setting").str.contains('"beta": 0.5,', literal=True))
            known = pl.col("setting").str.contains("flip_rate")
            name = {"PMPO AR": "PMPO AR, set, half of its bound", "bc-accepted": "both filtered clones"}.get(arm, arm)
            curve(axes, part.filter(~known), "flips", colour, "--", name)
            if part.filter(known).height:
                curve(axes, part.filter(known | (pl.col("flips") == 0)), "flips", colour, "-", f"{name}, de-biased")
        axes.set_xticks(RATES, [f"{100 * rate:g}" for rate in RATES])
        axes.set_xlabel("wrong labels, %")
        axes.set_ylim(0, 102)
        axes.set_title(function, fontsize=10)
        shared.bare(axes)
    figure.axes[0].set_ylabel("score")
    shared.legend_below(figure, 2)
    return figure
