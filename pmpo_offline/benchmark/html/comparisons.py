"""Charts that compare methods over all conditions that they share: sections of the registry `report.SECTIONS`.

After Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from itertools import combinations

import altair as alt
import numpy as np
import polars as pl

from pmpo_offline.benchmark.html import style
from pmpo_offline.benchmark.methods import shared
from pmpo_offline.benchmark.registries import Charts, Drawing
from pmpo_offline.benchmark.table import Row
from pmpo_offline.evaluation import statistics
from pmpo_offline.evaluation.statistics import interval, probability_of_improvement

MOST_NUMBERS = 12
"""Methods up to which the cells of a matrix show their numbers."""
REPLICATES = 2_000
"""Bootstrap samples of a summary: its ends are read off a picture."""


def aggregated(raw: pl.DataFrame, rows: Sequence[Row]) -> list[Drawing]:
    """IQM, mean, median and optimality gap over all conditions, and the performance profiles."""
    _, compared = shared(raw, rows)
    if len(compared) < 2:
        return []
    names = list(compared)
    charts: list[Drawing] = []
    for statistic, function in statistics.STATISTICS.items():
        intervals = {name: interval(tasks, function, replicates=REPLICATES) for name, tasks in compared.items()}
        values = [
            {"method": name, "value": interval.estimate, "low": interval.low, "high": interval.high}
            for name, interval in intervals.items()
        ]
        base = style.chart("values").encode(
            y=alt.Y("method:N", sort=names, axis=style.rows()),
            color=style.color(rows, values),
        )
        better = "lower is better" if statistic == "optimality gap" else "higher is better"
        title = f"{statistic} ({better})"
        marks = (
            base.mark_bar(height=9, opacity=0.45).encode(
                x=alt.X("low:Q", title=title, scale=alt.Scale(zero=False)), x2="high:Q"
            ),
            base.mark_tick(thickness=3, height=15).encode(
                x=alt.X("value:Q", title=title),
                tooltip=["method:N", *style.numbers("value", "low", "high")],
            ),
        )
        charts.append(style.drawn(alt.layer(*marks), style.height(len(names)), values=values))
    everything = np.concatenate([run for tasks in compared.values() for run in tasks])
    thresholds = np.linspace(min(0.0, np.floor(everything.min())), np.ceil(everything.max()), 81)
    values = [
        {"method": name, "threshold": float(at), "share": float(share)}
        for name, tasks in compared.items()
        for at, share in zip(thresholds, statistics.performance_profile(tasks, thresholds), strict=True)
    ]
    lit = alt.selection_point(fields=["method"], bind="legend")
    profile = (
        style.chart("values")
        .mark_line(strokeWidth=2.2, interpolate="step-after")
        .encode(
            x=alt.X("threshold:Q", title="normalized score τ"),
            y=alt.Y("share:Q", title="share of runs with a score above τ", axis=alt.Axis(format="%")),
            color=style.color(rows, values, legend=style.legend()),
            opacity=alt.condition(lit, alt.value(1.0), alt.value(0.12)),
            tooltip=["method:N", alt.Tooltip("threshold:Q", format=".0f"), alt.Tooltip("share:Q", format=".0%")],
        )
        .add_params(lit)
    )
    return [*charts, style.drawn(profile, 300, values=values)]


def improvement(raw: pl.DataFrame, rows: Sequence[Row]) -> list[Drawing]:
    """The probability that a run of one method beats one of another, averaged over conditions, as a matrix."""
    _, compared = shared(raw, rows)
    if len(compared) < 2:
        return []
    names = list(compared)
    values = []
    for ours, theirs in combinations(names, 2):
        interval = probability_of_improvement(compared[ours], compared[theirs])
        estimate, low, high = astuple(interval)
        values += [
            {"ours": ours, "theirs": theirs, "probability": estimate, "low": low, "high": high},
            {"ours": theirs, "theirs": ours, "probability": 1 - estimate, "low": 1 - high, "high": 1 - low},
        ]
    base = style.chart("values").encode(
        x=alt.X("theirs:N", sort=names, title="beats a run of", axis=alt.Axis(labelAngle=-45, labelLimit=110)),
        y=alt.Y("ours:N", sort=names, axis=style.rows()),
        tooltip=["ours:N", "theirs:N", *style.numbers("probability", "low", "high", form=".2f")],
    )
    scale = alt.Scale(domain=[0, 0.5, 1], range=style.DIVERGING, interpolate="lab")
    cells = base.mark_rect(cornerRadius=2).encode(
        color=alt.Color(
            "probability:Q", scale=scale, legend=alt.Legend(title=None, orient="top", gradientLength=160, format=".1f")
        )
    )
    numbers = base.mark_text(fontSize=11, color="#1a1c20").encode(text=alt.Text("probability:Q", format=".2f"))
    parts = [cells, numbers] if len(names) <= MOST_NUMBERS else [cells]
    return [style.drawn(alt.layer(*parts), style.height(len(names)), values=values)]


def ranks(raw: pl.DataFrame, rows: Sequence[Row]) -> list[Drawing]:
    """How probable each rank is for each method."""
    _, compared = shared(raw, rows)
    if len(compared) < 2:
        return []
    probability = statistics.rank_distribution(list(compared.values()), REPLICATES)
    mean = dict(zip(compared, statistics.mean_ranks(list(compared.values())), strict=True))
    order = sorted(mean, key=lambda name: mean[name])
    values = [
        {"method": name, "rank": rank + 1, "probability": float(share), "mean rank": float(mean[name])}
        for name, shares in zip(compared, probability, strict=True)
        for rank, share in enumerate(shares)
        if share > 0
    ]
    bars = (
        style.chart("values")
        .mark_bar(height=16)
        .encode(
            y=alt.Y("method:N", sort=order, axis=style.rows()),
            x=alt.X("probability:Q", title="probability of the rank", axis=alt.Axis(format="%"), stack="normalize"),
            color=alt.Color(
                "rank:O",
                scale=alt.Scale(scheme="viridis", reverse=True),
                legend=alt.Legend(orient="bottom", title="rank", columns=8),
            ),
            order=alt.Order("rank:O"),
            tooltip=[
                "method:N",
                "rank:O",
                alt.Tooltip("probability:Q", format=".0%"),
                alt.Tooltip("mean rank:Q", format=".2f"),
            ],
        )
    )
    return [style.drawn(bars, style.height(len(order)), values=values)]


AGGREGATES = Charts(
    "Aggregates and performance profile",
    "Methods with scores in all of the conditions that most of them share, with t intervals of 95 %, as in the "
    "table. The profile shows how many runs score above any threshold τ (click a name to single it out).",
    aggregated,
)
IMPROVEMENT = Charts(
    "Probability of improvement",
    "How often a run of the method in the row beats a run of the method in the column on the same data, averaged over "
    "conditions; ties count one half.",
    improvement,
)
RANKS = Charts("Ranks", "How probable each rank is, if the runs were drawn again; best average rank first.", ranks)
