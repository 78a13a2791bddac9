"""Colours and axes that all charts share: legible on white and on black, and for colour-blind readers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt

from pmpo_offline.benchmark.methods import methods
from pmpo_offline.benchmark.registries import Drawing
from pmpo_offline.benchmark.table import Row

BLUE, AMBER, GREY, RED = "#3b7ddd", "#d98200", "#8a8f98", "#d1495b"
METHODS = [
    *("#3b7ddd", "#d98200", "#1f9e77", "#d1495b", "#9467d0", "#26a9c2", "#b5651d", "#e377c2", "#7f9c2c", "#5c6bc0"),
    *("#c0a000", "#00897b", "#ef6c4d", "#8e7cc3", "#6d8f9c", "#a1503f"),
]
"""Colours of methods, in their order; more methods begin again."""
DIVERGING = ["#c8553d", "#efeae2", "#3b7ddd"]
"""Worse, equal, better."""


def colored(rows: Sequence[Row], names: Iterable[str]) -> dict[str, str]:
    """Return the colours of these algorithms or methods: everywhere on these rows' page the same, grey of controls."""
    controls = {row["algo"] for row in rows if row["shuffled"]}
    known = dict.fromkeys([*(row["algo"] for row in rows), *methods(rows), *names])
    order = [name for name in known if not any(name.startswith(control) for control in controls)]
    return {name: METHODS[order.index(name) % len(METHODS)] if name in order else GREY for name in names}


def color(
    rows: Sequence[Row], values: Iterable[Mapping[str, Any]], field: str = "method", legend: alt.Legend | None = None
) -> alt.Color:
    """Return the colours of the methods, or algorithms, that a field of the records `values` names, in their order."""
    named = colored(rows, dict.fromkeys(each[field] for each in values))
    return alt.Color(f"{field}:N", scale=alt.Scale(domain=[*named], range=[*named.values()]), legend=legend)


def height(count: int) -> int:
    """Return the height of a chart with a row a method, pixels."""
    return 24 * max(2, count)


def rows() -> alt.Axis:
    """Return the axis of charts with a row a method: long names are cut in the middle of a small screen."""
    return alt.Axis(title=None, labelLimit=190, domain=False, ticks=False)


def legend(title: str | None = None, columns: int = 2) -> alt.Legend:
    """Return a legend below the chart, where it takes no width."""
    return alt.Legend(orient="bottom", title=title, columns=columns, labelLimit=170, symbolLimit=40, symbolOpacity=1)


def choice(name: str, label: str, options: list[str]) -> alt.Parameter:
    """Return a parameter that the reader chooses from a list below the chart."""
    return alt.param(name=name, bind=alt.binding_select(options=options, name=f"{label} "), value=options[0])


def chart(data: str) -> alt.Chart:
    """Return a chart of the records of this name, which `drawn` adds; altair would check and copy every one."""
    return alt.Chart(alt.NamedData(name=data))


def by_choice(name: str, values: list[dict[str, Any]], field: str = "condition") -> tuple[alt.Parameter, alt.Chart]:
    """Return a choice among the values of a field, and the chart of those of the records `values` that have it."""
    chosen = choice(name, "data", list(dict.fromkeys(each[field] for each in values)))
    return chosen, chart("values").transform_filter(getattr(alt.datum, field) == chosen)


def drawn(made: alt.Chart | alt.LayerChart | alt.FacetChart, height: int, **data: list[dict[str, Any]]) -> Drawing:
    """Return the Vega-Lite specification of a chart that is as wide as the page, with its records by name."""
    return {**made.properties(width="container", height=height).to_dict(), "datasets": data}


def numbers(*fields: str, form: str = ".1f") -> list[alt.Tooltip]:
    """Return the tooltips of numbers."""
    return [alt.Tooltip(f"{field}:Q", format=form) for field in fields]
