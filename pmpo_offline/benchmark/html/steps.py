"""Episodes step by step: series of their rewards, actions and observations, and filmstrips of what a task can draw."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import QhullError

from pmpo_offline import tasks
from pmpo_offline.benchmark.html import style
from pmpo_offline.benchmark.registries import Drawing
from pmpo_offline.runtime.errors import UserError

SERIES = ("reward", "action", "observation")
"""What is drawn of an episode, the first of them at first."""
CHANNELS = 8
"""Dimensions of actions and observations that are drawn, the first ones."""
FRAMES = 8
"""Pictures of a filmstrip."""
_DETAIL = 1_000
"""Units a metre of a filmstrip's coordinates: they are whole numbers, which are short."""
_BEYOND = 1_000.0
"""States with larger numbers have left all bounds, and are not drawn."""

Matrix = NDArray[np.float32]


def series(reward: Matrix, action: Matrix, observation: Matrix) -> dict[str, list[float]]:
    """Return the numbers of each channel over T steps by its name, "reward" or "action 0", say; to four digits.

    Args:
        reward: (T,).
        action: (T, A).
        observation: (T, O).
    """
    found = {"reward": reward}
    for name, matrix in (("action", action), ("observation", observation)):
        found |= {f"{name} {channel}": matrix[:, channel] for channel in range(min(CHANNELS, matrix.shape[1]))}
    return {name: [float(f"{value:.4g}") for value in numbers] for name, numbers in found.items()}


def chart(episodes: Sequence[str], last: int | None = None, kinds: Sequence[str] = SERIES) -> Drawing:
    """Return the chart of one of these episodes; its data set `values` has `episode, series, channel, step, value`.

    With a `last` step a slider shows the values at one, or at the last one before it that is drawn. `kinds` are the
    series that can be chosen.
    """
    episode = style.choice("episode", "episode", list(episodes))
    kind = style.choice("series", "series", list(kinds))
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
    drawn = lines.mark_line(strokeWidth=1.6)
    if last is None:
        return style.drawn(alt.layer(drawn).add_params(episode, kind), 220)
    slider = alt.param(name="step", bind=alt.binding_range(min=0, max=last, step=1, name="step "), value=0)
    shown = lines.transform_filter("datum.step <= step").transform_joinaggregate(latest="max(step)")
    near = shown.transform_filter("datum.step == datum.latest")
    here = style.chart("here").transform_calculate(at="step").mark_rule(color=style.AMBER).encode(x="at:Q")
    text = near.mark_text(align="left", dx=7, dy=-7).encode(text=alt.Text("value:Q", format=".3~g"))
    layers = alt.layer(drawn, here, near.mark_circle(size=60), text)
    return style.drawn(layers.add_params(episode, kind, slider), 280, here=[{}])


def actions(color: alt.Color, *about: str) -> Drawing:
    """Return the chart of episodes of one step: `first` and `second` dimension of their actions in `values`.

    `about` are fields that are shown on hovering, beside the numbers.
    """
    points = (
        style.chart("values")
        .mark_circle(size=40, opacity=0.7)
        .encode(
            x=alt.X("first:Q", title="action, first dimension"),
            y=alt.Y("second:Q", title="action, second dimension"),
            color=color,
            tooltip=[*about, *style.numbers("first", "second", "reward", form=".3~g")],
        )
    )
    return style.drawn(points, 380)


def filmstrip(task: str, step: NDArray[np.integer[Any]], observation: Matrix) -> dict[str, Any]:
    """Return pictures of some of T observed states, evenly taken.

    Nothing if the task draws none or is not known here, and of states that it cannot draw.

    `step` has the steps that are drawn, `frames` their figures as lists [kind, width, x, y, x, y, …], and `box` the
    edges of them all: left, lowest, right, highest.
    """
    places = np.unique(np.linspace(0, len(step) - 1, FRAMES).round().astype(np.int64))
    seen = observation[places]
    with suppress(UserError, ImportError, ArithmeticError, ValueError, QhullError):
        drawn = tasks.get(task)
        if seen.shape[1] != drawn.observation_dim or not (np.abs(seen) < _BEYOND).all():
            return {}
        pictures = [
            [(kind, round(_DETAIL * width), (_DETAIL * points).round().astype(int)) for kind, points, width in picture]
            for picture in drawn.draw(seen)
        ]
        if not pictures:
            return {}
        figures = [figure for picture in pictures for figure in picture]
        low = np.min([points.min(0) - width // 2 for _, width, points in figures], axis=0)
        high = np.max([points.max(0) + width // 2 for _, width, points in figures], axis=0)
        frames = [[[kind, width, *points.ravel().tolist()] for kind, width, points in picture] for picture in pictures]
        return {"step": step[places].tolist(), "frames": frames, "box": [*low.tolist(), *high.tolist()]}
    return {}
