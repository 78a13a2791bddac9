"""The charts of a report's rows: sections of the registry `report.SECTIONS` that the HTML page shows.

Every function returns Vega-Lite charts, none where the results have nothing to draw. Marks that belong to a row of the
table carry its key, by which the page opens it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import altair as alt
import numpy as np
import polars as pl

from pmpo_offline.benchmark.html import style
from pmpo_offline.benchmark.methods import ROLES, methods, role, run_scores
from pmpo_offline.benchmark.registries import Charts, Drawing
from pmpo_offline.benchmark.report import condition
from pmpo_offline.benchmark.table import Row


def scores(raw: pl.DataFrame, rows: Sequence[Row]) -> list[Drawing]:
    """Every row's runs and its score with the interval, best first, one condition at a time."""
    by_key = run_scores(raw)
    values, points = [], []
    for row, name in sorted(zip(rows, methods(rows), strict=True), key=lambda pair: -pair[0]["iqm"]):
        common = {"condition": condition(row), "method": name, "key": row["key"], "role": role(row)}
        values.append(common | {each: row[each] for each in ("iqm", "low", "high", "seeds")})
        points += [common | {"run": run, "score": float(score)} for run, score in enumerate(by_key[row["key"]])]
    conditions = Counter(map(condition, rows))
    height = style.height(max(conditions.values()))
    y = alt.Y("method:N", sort=None, axis=style.rows())
    color = style.color(rows, values)
    shape = alt.Shape(
        "role:N",
        scale=alt.Scale(domain=list(ROLES), range=["circle", "diamond", "cross"]),
        legend=style.legend(columns=3),
    )
    base, dots = (style.chart(name).encode(y=y, color=color) for name in ("values", "points"))
    clones = [{"condition": name, "clone": score} for name, score in _clones(rows).items()]
    data = {"values": values, "points": points, "clones": clones}
    ends = style.numbers("iqm", "low", "high")
    layers = [
        base.mark_bar(height=11, opacity=0.35, cursor="pointer").encode(
            x=alt.X("low:Q", title=_metric(rows)), x2="high:Q"
        ),
        dots.mark_point(size=30, opacity=0.7, filled=True, cursor="pointer").encode(
            x="score:Q", shape=shape, tooltip=["method:N", "run:O", alt.Tooltip("score:Q", format=".1f")]
        ),
        base.mark_tick(thickness=3, height=17, cursor="pointer").encode(
            x=alt.X("iqm:Q", scale=alt.Scale(zero=False)), tooltip=["method:N", *ends, "seeds:Q"]
        ),
    ]
    if clones:
        layers.insert(0, style.chart("clones").mark_rule(strokeDash=[4, 3], color=style.AMBER).encode(x="clone:Q"))
    if len(conditions) > 1:
        chosen = style.choice("scores_condition", "data", list(conditions))
        layers = [layer.transform_filter(alt.datum.condition == chosen) for layer in layers]
        return [style.drawn(alt.layer(*layers).add_params(chosen), height, **data)]
    return [style.drawn(alt.layer(*layers), height, **data)]


def grid(raw: pl.DataFrame, rows: Sequence[Row]) -> list[Drawing]:
    """Heat maps over accepted shares: how far each method is above the better clone on the same labels."""
    clones = _clones(rows)
    values = [
        {
            "method": name,
            "data": f"{row['dataset']}, noise {row['noise']:g}, shares by {row['balance']}",
            "share": "as collected" if row["imbalance"] is None else f"{row['imbalance']:g}",
            "order": np.inf if row["imbalance"] is None else row["imbalance"],
            "margin": row["iqm"] - clones[condition(row)],
            "score": row["iqm"],
            "key": row["key"],
        }
        for row, name in zip(rows, methods(rows), strict=True)
        if role(row) == "method" and condition(row) in clones
    ]
    shares = [share for _, share in sorted({(float(each.pop("order")), each["share"]) for each in values})]
    if len(shares) < 2:
        return []
    chosen, chart = style.by_choice("grid_data", values, "data")
    largest = max(10.0, *(abs(each["margin"]) for each in values if np.isfinite(each["margin"])))
    base = chart.encode(
        x=alt.X("share:O", sort=shares, title="accepted share", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("method:N", axis=style.rows()),
        tooltip=["method:N", "share:O", *style.numbers("score", "margin")],
    )
    height = style.height(len({each["method"] for each in values}))
    cells = base.mark_rect(cornerRadius=2, cursor="pointer").encode(
        color=alt.Color(
            "margin:Q",
            scale=alt.Scale(domain=[-largest, 0, largest], range=style.DIVERGING, interpolate="lab"),
            legend=alt.Legend(title="score − better clone", orient="top", gradientLength=180),
        )
    )
    numbers = base.mark_text(fontSize=11, color="#1a1c20").encode(text=alt.Text("margin:Q", format="+.1f"))
    return [style.drawn(alt.layer(cells, numbers).add_params(chosen), height, values=values)]


def updates(_: pl.DataFrame, rows: Sequence[Row]) -> list[Drawing]:
    """Score against gradient steps, of methods that were run with several numbers of them."""
    values = []
    for row in rows:
        steps = row["training"].get("updates", row["training"].get("steps"))
        steps = steps and steps + row["training"].get("pretraining", 0)
        if steps is not None:
            values.append(
                {"method": row["algo"], "condition": condition(row), "updates": steps, "key": row["key"]}
                | {each: row[each] for each in ("iqm", "low", "high")}
            )
    curves: dict[tuple[str, str], set[int]] = {}
    for each in values:
        curves.setdefault((each["condition"], each["method"]), set()).add(each["updates"])
    values = [each for each in values if len(curves[each["condition"], each["method"]]) > 1]
    if not values:
        return []
    chosen, chart = style.by_choice("updates_condition", values)
    base = chart.encode(
        x=alt.X("updates:Q", title="gradient steps"),
        color=style.color(rows, values, legend=style.legend()),
    )
    layers = (
        base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", title=_metric(rows)), y2="high:Q"),
        base.mark_line(point=alt.OverlayMarkDef(size=40)).encode(y=alt.Y("iqm:Q", title=_metric(rows))),
    )
    return [style.drawn(alt.layer(*layers).add_params(chosen), 300, values=values)]


def tuning(_: pl.DataFrame, rows: Sequence[Row]) -> list[Drawing]:
    """The expected score of the best of k settings, of learners that `tune` tried with several."""
    from pmpo_offline.benchmark.tune import TRIAL, best_of

    trials: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        learner, trial, number = row["algo"].partition(TRIAL)
        if trial:
            trials.setdefault(learner, {}).setdefault(number, []).append(float(row["mean"]))
    values = [
        {"method": learner, "settings": budget, "score": score}
        for learner, scores in trials.items()
        for budget, score in enumerate(best_of([float(np.mean(each)) for each in scores.values()]), 1)
    ]
    if not values:
        return []
    lines = (
        style.chart("values")
        .mark_line(point=alt.OverlayMarkDef(size=40), strokeWidth=2)
        .encode(
            x=alt.X("settings:Q", title="settings tried", axis=alt.Axis(tickMinStep=1)),
            y=alt.Y("score:Q", title=f"expected {_metric(rows)} of the best", scale=alt.Scale(zero=False)),
            color=style.color(rows, values, legend=style.legend()),
            tooltip=["method:N", "settings:Q", *style.numbers("score")],
        )
    )
    return [style.drawn(lines, 300, values=values)]


def drift(_: pl.DataFrame, rows: Sequence[Row]) -> list[Drawing]:
    """Score against divergence from the model that training started from; collapsed policies are crosses."""
    values = [
        {"method": name, "algorithm": row["algo"], "condition": condition(row), "key": row["key"]}
        | {each: row[each] for each in ("iqm", "low", "high", "kl", "distinct")}
        | {"collapsed": "collapsed" if row["collapsed"] else "sound"}
        for row, name in zip(rows, methods(rows), strict=True)
        if row["kl"] is not None
    ]
    if not values:
        return []
    chosen, chart = style.by_choice("drift_condition", values)
    base = chart.encode(
        x=alt.X("kl:Q", title="KL from the start, nats a sample", scale=alt.Scale(type="symlog", constant=1)),
        color=style.color(rows, values, "algorithm", style.legend(columns=3)),
    )
    numbers = style.numbers("iqm", "kl", "distinct", form=".2f")
    points = base.mark_point(size=75, filled=True, opacity=0.9, cursor="pointer").encode(
        y=alt.Y("iqm:Q", title=_metric(rows)),
        shape=alt.Shape(
            "collapsed:N",
            scale=alt.Scale(domain=["sound", "collapsed"], range=["circle", "cross"]),
            legend=style.legend(),
        ),
        tooltip=["method:N", *numbers, "collapsed:N"],
    )
    bars = base.mark_rule(opacity=0.6).encode(y="low:Q", y2="high:Q")
    return [style.drawn(alt.layer(bars, points).add_params(chosen), 340, values=values)]


def stability(raw: pl.DataFrame, rows: Sequence[Row]) -> list[Drawing]:
    """Every run's score against β in multiples of its bound, with the bound and the collapse threshold."""
    by_key, values, thresholds = run_scores(raw), [], []
    for row, name in zip(rows, methods(rows), strict=True):
        bound = row["beta_min"]
        if not bound or not np.isfinite(bound) or not row["beta"]:
            continue
        common = {"condition": condition(row), "algorithm": row["algo"], "method": name, "key": row["key"]}
        factor = {"factor": row["beta"] / bound, "beta": row["beta"], "bound": bound}
        values += [common | factor | {"score": float(score)} for score in by_key[row["key"]]]
        if row["beta_collapse"]:
            thresholds.append({"condition": condition(row), "at": row["beta_collapse"] / bound})
    if len({each["factor"] for each in values}) < 3:
        return []
    chosen, chart = style.by_choice("stability_condition", values)
    points = chart.mark_circle(size=52, opacity=0.65, cursor="pointer").encode(
        x=alt.X("factor:Q", title="β / bound", scale=alt.Scale(type="log", nice=False, padding=20)),
        y=alt.Y("score:Q", title=_metric(rows)),
        color=style.color(rows, values, "algorithm", style.legend()),
        tooltip=["method:N", *style.numbers("score", "beta", "bound", "factor", form=".3g")],
    )
    bound_rule = style.chart("bound")
    layers = [
        points,
        bound_rule.mark_rule(strokeDash=[5, 3], color=style.RED, strokeWidth=1.5).encode(x="at:Q"),
        bound_rule.mark_text(align="left", dx=4, color=style.RED).encode(x="at:Q", y=alt.value(8), text="name:N"),
    ]
    if thresholds:
        collapse = style.chart("thresholds").transform_filter(alt.datum.condition == chosen)
        layers.append(collapse.mark_rule(strokeDash=[2, 3], color=style.GREY, strokeWidth=1.5).encode(x="at:Q"))
    data = {"values": values, "thresholds": thresholds, "bound": [{"at": 1, "name": "bounded from here"}]}
    return [style.drawn(alt.layer(*layers).add_params(chosen), 320, **data)]


def _clones(rows: Sequence[Row]) -> dict[str, float]:
    """Return the score of each condition's best clone."""
    ascending = sorted((row for row in rows if role(row) == "clone"), key=lambda row: float(row["iqm"]))
    return {condition(row): row["iqm"] for row in ascending}


def _metric(rows: Sequence[Row]) -> str:
    return " / ".join(sorted({row["metric"] for row in rows})).replace("_", " ")


SCORES = Charts(
    "Scores",
    "Each mark is a training run, the bar the interquartile mean with its 95 % interval; dashed: the best clone. "
    "A method is worth something where it beats the better filtered clone. Click a bar for its runs.",
    scores,
)
GRID = Charts(
    "Who wins where",
    "Score minus that of the better clone on the same labels: blue where learning from feedback beats filtering.",
    grid,
)
UPDATES = Charts("Score against updates", "Interquartile mean with its interval.", updates)
TUNING = Charts(
    "Score against tuning budget",
    "What to expect of the best of so many settings, drawn from the learner's range without replacement.",
    tuning,
)
DRIFT = Charts(
    "Reward against divergence",
    "How far a language model moved for its score; crosses: collapsed, it repeats words or left the language.",
    drift,
)
STABILITY = Charts(
    "Stability",
    "Each dot is a run. Below its bound (dashed red) the loss has no minimum for a policy that can single outcomes "
    "out; at or below the collapse threshold (dotted grey) a policy over outcomes ends at a single one.",
    stability,
)
