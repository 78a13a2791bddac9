"""The learning curves of a report: metrics over updates, a line a method, and the band of its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import polars as pl

from pmpo_offline.benchmark.html import style
from pmpo_offline.benchmark.methods import methods
from pmpo_offline.benchmark.registries import Drawing
from pmpo_offline.benchmark.report import condition
from pmpo_offline.benchmark.table import Row

TITLE = "Learning curves"
TEXT = (
    "Metrics of the minibatches over updates: the mean of a row's runs, and the band from its lowest to its highest "
    "run. Click a name to single it out, a line for its runs."
)
METRICS = ("loss", "kl", "logps/chosen", "logps/rejected", "rewards/margins", "rewards/accuracies")
"""The metrics that can be chosen, those that are recorded."""
MOST = 9_000
"""Numbers in the picture: of many rows fewer updates are drawn, and of very many the loss alone."""


def curves(recorded: Mapping[str, pl.DataFrame], rows: Sequence[Row]) -> list[Drawing]:
    """Return the chart of the curves by key; none without curves."""
    shown = [(row, name) for row, name in zip(rows, methods(rows), strict=True) if row["key"] in recorded]
    if not shown:
        return []
    known = {column for table in recorded.values() for column in table.columns}
    metrics = [name for name in METRICS if name in known] if len(shown) <= 60 else ["loss"]
    points = max(6, min(60, MOST // (len(shown) * len(metrics) * 3)))
    tables = {row["key"]: recorded[row["key"]] for row, _ in shown}
    drawn = {metric: _thinned(tables, metric, points) for metric in metrics}
    values = [
        {"method": name, "condition": condition(row), "key": row["key"], **each}
        for row, name in sorted(shown, key=lambda pair: pair[1])
        for metric in metrics
        for each in drawn[metric].get(row["key"], [])
    ]
    conditions = list(dict.fromkeys(condition(row) for row, _ in shown))
    data, metric = style.choice("curve_condition", "data", conditions), style.choice("curve_metric", "metric", metrics)
    lit = alt.selection_point(fields=["method"], bind="legend")
    base = (
        style.chart("values")
        .transform_filter((alt.datum.condition == data) & (alt.datum.metric == metric))
        .encode(
            x=alt.X("step:Q", title="updates", scale=alt.Scale(nice=False)),
            color=style.color(rows, values, legend=style.legend(columns=3)),
            opacity=alt.condition(lit, alt.value(1.0), alt.value(0.08)),
        )
    )
    scale = alt.Scale(zero=False, nice=True)
    axis = alt.Axis(title=None, minExtent=40)  # room for the numbers of every metric
    band = base.mark_area().encode(
        y=alt.Y("low:Q", scale=scale, axis=axis),
        y2="high:Q",
        opacity=alt.condition(lit, alt.value(0.18), alt.value(0.02)),
    )
    line = base.mark_line(strokeWidth=2, cursor="pointer").encode(
        y=alt.Y("mean:Q", scale=scale, axis=axis),
        tooltip=["method:N", "metric:N", "step:Q", *style.numbers("mean", "low", "high", form=".4~g")],
    )
    return [style.drawn(alt.layer(band, line).add_params(data, metric, lit), 320, values=values)]


def _thinned(tables: Mapping[str, pl.DataFrame], metric: str, points: int) -> dict[str, list[dict[str, Any]]]:
    """Return a metric's mean, lowest and highest run at so many of the updates of each table, the last among them.

    One query for all tables: each of a thousand takes longer to ask than to answer.
    """
    having = {key: table[["step", metric]] for key, table in tables.items() if metric in table.columns}
    if not having:
        return {}
    keys = [key for key, table in having.items() for _ in range(len(table))]
    every = pl.concat(having.values(), how="vertical_relaxed").with_columns(key=pl.Series(keys, dtype=pl.String))
    later = (pl.col("step").rank("dense", descending=True) - 1).over("key")
    apart = (pl.col("step").n_unique() / points).ceil().cast(pl.UInt32).over("key")
    rounded = (pl.col(name).round_sig_figs(4) for name in ("mean", "low", "high"))
    kept = (
        every.filter(pl.col(metric).is_finite())
        .filter(later % apart == 0)
        .group_by("key", "step")
        .agg(mean=pl.col(metric).mean(), low=pl.col(metric).min(), high=pl.col(metric).max())
        .sort("step")
        .select("key", pl.lit(metric).alias("metric"), "step", *rounded)
    )
    return {str(key): rows.drop("key").to_dicts() for (key,), rows in kept.group_by(["key"], maintain_order=True)}
