"""The charts of a dataset: scores and labels, returns by behaviour, and episodes to step through."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import polars as pl

from pmpo_offline.benchmark.html import steps, style
from pmpo_offline.benchmark.registries import Drawing
from pmpo_offline.data import Dataset, Metadata, columns

LABELS = {1: "accepted", -1: "rejected", 0: "unlabelled"}
MOST_UNITS = 200_000
"""Labelled units that a histogram counts, taken evenly from the first to the last."""
MOST_EPISODES, SHOWN, POINTS = 1_500, 16, 60
"""Episodes in the chart of returns; episodes to step through, and points of each of their series."""
_COLORS = alt.Scale(domain=[*LABELS.values()], range=[style.BLUE, style.RED, style.GREY])


def score_name(metadata: Metadata) -> str:
    """Return what the scores are: the name of the source's column where they are from one, else of the score."""
    column = metadata.score.settings.get("column")
    return f"column {column}" if column else metadata.score.name


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
            x=alt.X("low:Q", title=f"score: {score_name(dataset.metadata)}", bin="binned"),
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
    """The return of every episode, and the share of its labels, by the behaviour that collected it.

    Where all returns are equal, as without rewards, the episodes' scores are in their place, if they have any.
    """
    if dataset.episodes is None:
        return []
    episodes = dataset.episodes
    frame = pl.DataFrame(
        {
            "behavior": columns.vector(episodes, "behavior").astype(str),
            "return": columns.vector(episodes, "return"),
            "length": columns.vector(episodes, "length"),
            "score": columns.vector(episodes, "score").astype(np.float64),
            "label": columns.labels(episodes),
        }
    ).with_row_index("episode")
    episode_labels = dataset.metadata.unit == "episode"
    by_score = frame["return"].n_unique() == 1 and frame["score"].is_finite().any()
    good, title = ("score", score_name(dataset.metadata)) if by_score else ("return", "return of an episode")
    frame = frame.with_columns(pl.col("score").fill_nan(None))
    taken = frame[evenly(len(frame), MOST_EPISODES)].to_dicts()
    values = [each | {"label": LABELS[each["label"]] if episode_labels else "unlabelled"} for each in taken]
    names = sorted(set(frame["behavior"]))
    ticks = (
        style.chart("values")
        .mark_tick(thickness=1.5, height=16, opacity=0.55)
        .encode(
            y=alt.Y("behavior:N", sort=names, axis=style.rows()),
            x=alt.X(f"{good}:Q", title=title, scale=alt.Scale(zero=False)),
            color=alt.Color("label:N", scale=_COLORS, legend=style.legend(columns=3) if episode_labels else None),
            tooltip=["episode:Q", "behavior:N", "label:N", *style.numbers(good, form=".4~g"), "length:Q"],
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
    """Scores, rewards, actions and observations of some episodes, with a slider over their steps.

    The chart opens on what labels of steps came from, and never on rewards that are all equal.
    """
    if dataset.episodes is None or not dataset.table.num_rows:
        return []
    longest = int(columns.vector(dataset.episodes, "length").max())
    if longest < 2:
        return _actions(dataset)
    values: list[dict[str, Any]] = []
    for name, (_, start, length) in _shown(dataset).items():
        taken = evenly(length, POINTS)
        part = dataset.table.take(start + taken)
        matrices = (columns.matrix(part, name) for name in ("action", "observation"))
        drawn = steps.series(columns.vector(part, "reward"), *matrices)
        if dataset.metadata.unit == "step":
            drawn["score"] = [float(f"{score:.4g}") for score in columns.vector(part, "score")]
        for channel, numbers in drawn.items():
            of = {"episode": name, "series": channel.partition(" ")[0], "channel": channel}
            points = zip(taken, numbers, strict=True)
            values += [of | {"step": int(step), "value": value} for step, value in points if np.isfinite(value)]
    varied = len({each["value"] for each in values if each["series"] == "reward"}) > 1
    kinds = [*(["score"] if any(each["series"] == "score" for each in values) else []), *steps.SERIES]
    kinds.sort(key=lambda kind: kind == "reward" and not varied)
    made = steps.chart([*_shown(dataset)], longest - 1, kinds)
    return [{**made, "datasets": made["datasets"] | {"values": values}}]


def filmstrips(dataset: Dataset) -> dict[str, Any]:
    """Return the filmstrip of each of these episodes by its name, to the final observation, if the task draws them."""
    if dataset.episodes is None:
        return {}
    final = columns.matrix(dataset.episodes, "final_observation")
    strips = {}
    for name, (index, start, length) in _shown(dataset).items():
        seen = columns.matrix(dataset.table.slice(start, length), "observation")
        observation = np.concatenate([seen, final[index : index + 1]])
        strips[name] = steps.filmstrip(dataset.metadata.task, np.arange(length + 1), observation)
    return strips if any(strips.values()) else {}


def _shown(dataset: Dataset) -> dict[str, tuple[int, int, int]]:
    """Return some episodes by a name that says what they are: their number, start and length."""
    assert dataset.episodes is not None
    numbers = (columns.vector(dataset.episodes, name) for name in ("start", "length"))
    starts, lengths = (each.astype(int) for each in numbers)
    behaviors, signs = columns.vector(dataset.episodes, "behavior"), columns.labels(dataset.episodes)
    found = {}
    for index in evenly(len(lengths), SHOWN).tolist():
        label = [LABELS[int(signs[index])]] if dataset.metadata.unit == "episode" else []
        about = ", ".join([str(behaviors[index]), *label, f"{lengths[index]} steps"])
        found[f"{index} ({about})"] = index, int(starts[index]), int(lengths[index])
    return found


def _actions(dataset: Dataset) -> list[Drawing]:
    """Episodes of one step: the first two dimensions of their actions."""
    taken = dataset.table.take(evenly(dataset.table.num_rows, MOST_EPISODES))
    actions, signs = columns.matrix(taken, "action"), columns.labels(taken)
    second = actions[:, min(1, actions.shape[1] - 1)]
    values = [
        {"first": float(x), "second": float(y), "label": LABELS[int(sign)], "reward": float(reward)}
        for x, y, sign, reward in zip(actions[:, 0], second, signs, columns.vector(taken, "reward"), strict=True)
    ]
    made = steps.actions(alt.Color("label:N", scale=_COLORS, legend=style.legend(columns=3)), "label:N")
    return [{**made, "datasets": {"values": values}}]


def evenly(count: int, most: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return at most `most` of the indices up to `count`, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64)) if count else np.zeros(0, np.int64)
