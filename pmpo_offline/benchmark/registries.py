"""What other packages add to a benchmark: executors and report sections, each imported on first use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from pmpo_offline.runtime.registry import Registry

if TYPE_CHECKING:
    import polars as pl

    from pmpo_offline.benchmark.executors import Executor
    from pmpo_offline.benchmark.table import Row

EXECUTORS: Registry[type[Executor]] = Registry(
    "executor",
    "pmpo_offline.executors",
    {
        "local": "pmpo_offline.benchmark.executors.local:Local",
        "ray": "pmpo_offline.benchmark.executors.ray_tasks:RayTasks",
        "submitit": "pmpo_offline.benchmark.executors.slurm:Submitit",
    },
)

Drawing = dict[str, Any]
"""A Vega-Lite specification with its data, such as `altair.Chart(…).to_dict()`."""


@dataclass(frozen=True)
class Charts:
    """A section of the HTML page alone: charts with a title and a text above them."""

    title: str
    text: str
    """Markdown."""
    draw: Callable[[pl.DataFrame, Sequence[Row]], Sequence[Drawing]]
    """Returns charts; a section without any is left out."""


Section: TypeAlias = "Callable[[pl.DataFrame, Sequence[Row]], str] | Charts"
"""A part of the report, made from the raw scores and the rows of the table.

A function returns Markdown, which report.md and the HTML page show; empty text is left out.
"""
CHARTS = {
    "scores": "charts:SCORES",
    "aggregates": "comparisons:AGGREGATES",
    "improvement": "comparisons:IMPROVEMENT",
    "ranks": "comparisons:RANKS",
    "grid": "charts:GRID",
    "updates": "charts:UPDATES",
    "tuning": "charts:TUNING",
    "drift": "charts:DRIFT",
    "stability": "charts:STABILITY",
}
"""Our charts: charting libraries take a second to import, and report.md has none."""
SECTIONS: Registry[Section] = Registry(
    "report section",
    "pmpo_offline.report_sections",
    {
        **{name: f"pmpo_offline.benchmark.report:{name}_section" for name in ("table", "notes", "figure", "versions")},
        **{name: f"pmpo_offline.benchmark.html.{place}" for name, place in CHARTS.items()},
    },
)
