"""The charts of a dataset: scores and labels, returns by behaviour, and episodes to step through."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import polars as pl

from pmpo_offline.benchmark.html import style
from pmpo_offline.benchmark.report import Drawing
from pmpo_offline.data import Dataset, columns

LABELS = {1: "accepted", -1: "rejected", 0: "unlabelled"}
MOST_UNITS = 200_000
"""Labelled units that a histogram counts, taken evenly from the first to the last."""
MOST_EPISODES, SHOWN, POINTS = 1_500, 16, 60
"""Episodes in the chart of returns; episodes to step through, and points of each of their series."""
CHANNELS = 8
"""Dimensions of actions and observations that are drawn, the first ones."""
_COLORS = alt.Scale(domain=[*LABELS.values()], range=[style.BLUE, style.RED, style.GREY])


def units(dataset: Dataset) -> pl.DataFrame:
    """Return the `score` and the `label` in words of every labelled unit: episode, step, response or candidate."""
    table = {"episode": dataset.episodes, "step": dataset.table}.get(dataset.metadata.unit, dataset.candidates)
    table = dataset.table if table is None else table
    kept = table.take(evenly(table.num_rows, MOST_UNITS))
    label = [LABELS[int(sign)] for sign in columns.labels(kept)]
    return pl.DataFrame({"score": columns.vector(kept, "score").astype(np.float64), "label": label})


def scores(dataset: Dataset) -> list[Drawing]:
    """Histogram of the scores, coloured by label, with the threshold; bars of the labels."""
    frame, threshold = units(dataset), dataset.metadata.threshold
    counts = frame["label"].value_counts().to_dicts()
    bars = (
        style.chart("counts")
        .mark_bar(height=18)
        .encode(
            y=alt.Y("label:N", sort=[*LABELS.values()], axis=style.rows()),
            x=alt.X("count:Q", title=f"{dataset.metadata.unit}s"),
            color=alt.Color("label:N", scale=_COLORS, legend=None),
            tooltip=["label:N", "count:Q"],
        )
    )
    known = frame.filter(pl.col("score").is_finite())
    if known.is_empty():
        return [style.drawn(bars, style.height(3), counts=counts)]
    edges = np.histogram_bin_edges(known["score"], bins=40)
    values = [
        {"low": float(low), "high": float(high), "label": name, "count": int(count)}
        for (name,), group in known.group_by("label")
        for low, high, count in zip(edges, edges[1:], np.histogram(group["score"], edges)[0], strict=False)
        if count
    ]
    histogram = (
        style.chart("values")
        .mark_bar()
        .encode(
            x=alt.X("low:Q", title=f"score: {dataset.metadata.score.name}", bin="binned"),
            x2="high:Q",
            y=alt.Y("count:Q", title=f"{dataset.metadata.unit}s"),
            color=alt.Color("label:N", scale=_COLORS, legend=style.legend(columns=3)),
            tooltip=["label:N", *style.numbers("low", "high", form=".4~g"), "count:Q"],
        )
    )
    cut = [] if threshold is None else [{"threshold": threshold}]
    rule = style.chart("cut").mark_rule(strokeDash=[4, 3], strokeWidth=2, color=style.AMBER).encode(x="threshold:Q")
    both = alt.layer(histogram, rule) if cut else histogram
    return [style.drawn(both, 240, values=values, cut=cut), style.drawn(bars, style.height(3), counts=counts)]


def behaviors(dataset: Dataset) -> list[Drawing]:
    """The return of every episode, and the share of its labels, by the behaviour that collected it."""
    if dataset.episodes is None:
        return []
    episodes = dataset.episodes
    frame = pl.DataFrame(
        {
            "behavior": columns.vector(episodes, "behavior").astype(str),
            "return": columns.vector(episodes, "return"),
            "length": columns.vector(episodes, "length"),
            "label": columns.labels(episodes),
        }
    ).with_row_index("episode")
    episode_labels = dataset.metadata.unit == "episode"
    taken = frame[evenly(len(frame), MOST_EPISODES)].to_dicts()
    values = [each | {"label": LABELS[each["label"]] if episode_labels else "unlabelled"} for each in taken]
    names = sorted(set(frame["behavior"]))
    ticks = (
        style.chart("values")
        .mark_tick(thickness=1.5, height=16, opacity=0.55)
        .encode(
            y=alt.Y("behavior:N", sort=names, axis=style.rows()),
            x=alt.X("return:Q", title="return of an episode", scale=alt.Scale(zero=False)),
            color=alt.Color("label:N", scale=_COLORS, legend=style.legend(columns=3) if episode_labels else None),
            tooltip=["episode:Q", "behavior:N", "label:N", *style.numbers("return", form=".4~g"), "length:Q"],
        )
    )
    labels = columns.labels(dataset.table) if dataset.metadata.unit == "step" else frame["label"].to_numpy()
    whose = frame["behavior"].to_numpy()
    if dataset.metadata.unit == "step":
        whose = whose[columns.vector(dataset.table, "episode")]
    shares = pl.DataFrame({"behavior": whose, "sign": labels}).group_by("behavior", "sign").len().to_dicts()
    counts = [{"behavior": each["behavior"], "label": LABELS[each["sign"]], "count": each["len"]} for each in shares]
    bars = (
        style.chart("counts")
        .mark_bar(height=16)
        .encode(
            y=alt.Y("behavior:N", sort=names, axis=style.rows()),
            x=alt.X(
                "count:Q", stack="normalize", title=f"share of its {dataset.metadata.unit}s", axis=alt.Axis(format="%")
            ),
            color=alt.Color("label:N", scale=_COLORS, legend=style.legend(columns=3)),
            tooltip=["behavior:N", "label:N", "count:Q"],
        )
    )
    drawn = [style.drawn(ticks, style.height(len(names)), values=values)]
    return [*drawn, style.drawn(bars, style.height(len(names)), counts=counts)] if len(counts) > 1 else drawn


def episodes(dataset: Dataset) -> list[Drawing]:
    """Rewards, actions and observations of some episodes, with a slider over their steps."""
    if dataset.episodes is None or not dataset.table.num_rows:
        return []
    starts, lengths = (columns.vector(dataset.episodes, name) for name in ("start", "length"))
    behaviors, signs = columns.vector(dataset.episodes, "behavior"), columns.labels(dataset.episodes)
    if lengths.max() < 2:
        return _actions(dataset)
    values: list[dict[str, Any]] = []
    names = []
    for index in evenly(len(lengths), SHOWN):
        start, length = int(starts[index]), int(lengths[index])
        label = [LABELS[int(signs[index])]] if dataset.metadata.unit == "episode" else []
        names.append(f"{index} ({', '.join([str(behaviors[index]), *label, f'{length} steps'])})")
        rows = start + evenly(length, POINTS)
        part = dataset.table.take(rows)
        series = {"reward": {"reward": columns.vector(part, "reward")}}
        for name in ("action", "observation"):
            matrix = columns.matrix(part, name)
            series[name] = {
                f"{name} {channel}": matrix[:, channel] for channel in range(min(CHANNELS, matrix.shape[1]))
            }
        values += [
            {"episode": names[-1], "series": kind, "channel": channel, "step": int(row - start), "value": float(value)}
            for kind, channels in series.items()
            for channel, numbers in channels.items()
            for row, value in zip(rows, numbers, strict=True)
        ]
    episode = style.choice("episode", "episode", names)
    kind = style.choice("series", "series", ["reward", "action", "observation"])
    last = int(lengths.max()) - 1
    slider = alt.param(name="step", bind=alt.binding_range(min=0, max=last, step=1, name="step "), value=0)
    near = max(1, -(-last // (2 * POINTS)))
    lines = (
        style.chart("values")
        .transform_filter((alt.datum.episode == episode) & (alt.datum.series == kind))
        .encode(
            x=alt.X("step:Q", title="step"),
            y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
            color=alt.Color("channel:N", legend=style.legend(columns=4)),
            tooltip=["channel:N", "step:Q", *style.numbers("value", form=".4~g")],
        )
    )
    here = style.chart("here").transform_calculate(at="step").mark_rule(color=style.AMBER).encode(x="at:Q")
    at = lines.transform_filter(f"abs(datum.step - step) <= {near}").mark_circle(size=60)
    text = lines.transform_filter(f"abs(datum.step - step) <= {near}").mark_text(align="left", dx=7, dy=-7).encode(
        text=alt.Text("value:Q", format=".3~g")
    )  # fmt: skip
    layers = alt.layer(lines.mark_line(strokeWidth=1.6), here, at, text).add_params(episode, kind, slider)
    return [style.drawn(layers, 280, values=values, here=[{}])]


def _actions(dataset: Dataset) -> list[Drawing]:
    """Episodes of one step: the first two dimensions of their actions."""
    taken = dataset.table.take(evenly(dataset.table.num_rows, MOST_EPISODES))
    actions, signs = columns.matrix(taken, "action"), columns.labels(taken)
    second = actions[:, min(1, actions.shape[1] - 1)]
    values = [
        {"first": float(x), "second": float(y), "label": LABELS[int(sign)], "reward": float(reward)}
        for x, y, sign, reward in zip(actions[:, 0], second, signs, columns.vector(taken, "reward"), strict=True)
    ]
    points = (
        style.chart("values")
        .mark_circle(size=22, opacity=0.6)
        .encode(
            x=alt.X("first:Q", title="action, first dimension"),
            y=alt.Y("second:Q", title="action, second dimension"),
            color=alt.Color("label:N", scale=_COLORS, legend=style.legend(columns=3)),
            tooltip=["label:N", *style.numbers("first", "second", "reward", form=".3~g")],
        )
    )
    return [style.drawn(points, 420, values=values)]


def evenly(count: int, most: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return at most `most` of the indices up to `count`, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64)) if count else np.zeros(0, np.int64)
