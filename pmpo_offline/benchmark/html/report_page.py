"""The page of a benchmark: headline, table, charts, and for every number its runs and their episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import altair as alt
import polars as pl

from pmpo_offline.benchmark import report
from pmpo_offline.benchmark.episodes import WHICH
from pmpo_offline.benchmark.html import learning, page, steps, style
from pmpo_offline.benchmark.html.headline import headline
from pmpo_offline.benchmark.html.runs import details, did
from pmpo_offline.benchmark.methods import methods, role
from pmpo_offline.benchmark.registries import SECTIONS, Charts, Drawing
from pmpo_offline.benchmark.report import condition, labelling
from pmpo_offline.benchmark.table import Row
from pmpo_offline.runtime import progress

MOST_BYTES = 2_000_000
"""A page is no larger where fewer episodes can achieve it: of each run fewer are listed, and of fewer runs some are
drawn, each row's first run before any second. The page says how many."""
MOST_RUNS = 160
"""Runs whose episodes or answers are shown."""
OWN = ("table", "figure", "versions")
"""Sections of report.md that the page shows in its own way."""


@dataclass(frozen=True)
class Made:
    """How results were made, beside what the raw scores say."""

    commands: Sequence[str] = ()
    hardware: Sequence[str] = ()
    answers: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    """Prompts with their answers (`benchmark.episodes`), by key of a row."""
    episodes: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    """Some evaluation episodes (`benchmark.episodes`), by key of a row."""
    curves: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    """Metrics over updates (`benchmark.curves`), by key of a row."""
    entries: str = ""
    """Markdown: the submissions of a leaderboard."""


def report_page(title: str, raw: pl.DataFrame, rows: Sequence[Row], made: Made = Made()) -> str:
    """Return the page of a table as one HTML document."""
    entries = [page.Section("entries", "Submissions", made.entries)] if made.entries else []
    drawn = learning.curves(made.curves, rows)
    learned = [page.Section("curves", learning.TITLE, learning.TEXT, drawn)] if drawn else []
    sections = [*entries, *_sections(raw, rows), *learned]
    columns = _columns(rows)
    context: dict[str, Any] = {
        "title": title,
        "headline": headline(raw, rows),
        "shared": _shared(rows),
        "tiles": _tiles(raw, rows),
        "columns": columns,
        "lines": _lines(rows, columns),
        "filters": _filters(rows),
        "notes": page.Section("notes", "", report.notes_section(raw, rows)),
        "made": made,
        "versions": report.versions_section(raw, rows),
        "datasets": _datasets(rows),
    }
    episodes, done = max(row["episodes"] for row in rows), did((made.answers, made.episodes), MOST_RUNS)
    color = alt.Color("reward:Q", scale=alt.Scale(scheme="viridis"), legend=style.legend())
    drawings = {"episodes": episode_chart(raw["success"]), "steps": steps.chart(WHICH), "samples": steps.actions(color)}
    share, recorded = 1.0, sorted({*made.answers, *made.episodes})
    while True:
        most, shown = max(1, int(episodes * share)), dict(islice(done.items(), int(len(done) * share)))
        data = {"rows": details(raw, rows, most, shown), "recorded": recorded, "drawings": drawings}
        text = page.render("report.html.j2", sections, data, **context)
        if (size := len(text.encode())) <= MOST_BYTES or (most == 1 and not shown):
            return text
        share *= 0.8 * MOST_BYTES / size


def _sections(raw: pl.DataFrame, rows: Sequence[Row]) -> Sequence[page.Section]:
    made = []
    for number, (name, section) in enumerate(SECTIONS.items()):
        progress.report("sections of the page", number, len(SECTIONS))
        if isinstance(section, Charts):
            charts = section.draw(raw, rows)
            made += [page.Section(name, section.title, section.text, charts)] if charts else []
        elif name not in (*OWN, "notes") and (text := section(raw, rows)):
            made.append(page.Section(name, name.replace("_", " ").capitalize(), text))
    return made


def _tiles(raw: pl.DataFrame, rows: Sequence[Row]) -> list[tuple[str, str]]:
    counts = {
        "methods": len({name for name, row in zip(methods(rows), rows, strict=True) if not row["shuffled"]}),
        "conditions": len({condition(row) for row in rows}),
        "training runs": sum(row["seeds"] for row in rows),
        "evaluation episodes": len(raw),
    }
    return [(f"{count:,}", name) for name, count in counts.items()]


def _shared(rows: Sequence[Row]) -> str:
    """Return what all rows of the table have in common."""
    parts = [{row["dataset"] for row in rows}, {labelling(row) for row in rows}]
    parts += [
        {f"{row[each]} {name}" for row in rows}
        for each, name in (("seeds", "runs a row"), ("episodes", "episodes a run"))
    ]
    return ", ".join(part for values in parts if len(values) == 1 for part in values)


def _columns(rows: Sequence[Row]) -> list[str]:
    """Return the table's columns: no column of dashes, and none of what all rows share but numbers."""
    cells = report.cells(rows)
    shown = ["method"]
    shown += ["dataset"] if len({row["dataset"] for row in rows}) > 1 else []
    shown += ["labels"] if len({labelling(row) for row in rows}) > 1 else []
    shown += ["seeds"] if len({row["seeds"] for row in rows}) > 1 else []
    hidden = {*report.TEXT, "accepted", "noise", "seeds"}
    return shown + [name for name in cells[0] if name not in hidden and any(line[name] != "–" for line in cells)]


def _lines(rows: Sequence[Row], columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return the table's rows: their role, their colour in the charts, and the texts of the cells."""
    colors = style.colored(rows, methods(rows))
    return [
        {
            "role": role(row),
            "color": colors[name],
            "dataset": row["dataset"],
            "labels": labelling(row),
            "cells": [(line | {"method": _method(line), "labels": labelling(row)})[column] for column in columns],
        }
        for row, line, name in zip(rows, report.cells(rows), methods(rows), strict=True)
    ]


def _method(line: dict[str, str]) -> str:
    return f"{line['algorithm']} {line['settings']}".rstrip()


def _filters(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return the values that the table can be restricted to, of columns with several."""
    values = {
        "dataset": list(dict.fromkeys(row["dataset"] for row in rows)),
        "labels": list(dict.fromkeys(map(labelling, rows))),
    }
    return {name: options for name, options in values.items() if len(options) > 1}


def _datasets(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Return each dataset with its labels and its hash."""
    return list(dict.fromkeys((row["dataset"], labelling(row), row["dataset_sha"]) for row in rows))


def episode_chart(success: pl.Series) -> Drawing:
    """Return the chart of a run's episodes; the page fills in the data set `episodes`.

    Its legend has what there is in `success`, Booleans of all runs: a dash where some are unknown, and only then.
    """
    known = {"yes": style.BLUE, "no": style.RED} if success.null_count() < len(success) else {}
    colors = {**known, **({"–": style.GREY} if success.null_count() else {})}
    base = style.chart("episodes").encode(y=alt.Y("return:Q", title="return", scale=alt.Scale(zero=False)))
    points = base.mark_circle(size=46, opacity=0.8).encode(
        x=alt.X("episode:Q", title="evaluation episode", axis=alt.Axis(tickMinStep=1)),
        tooltip=["episode:Q", "layout:N", alt.Tooltip("return:Q", format=".4~g"), "success:N"],
        color=alt.Color(
            "success:N",
            scale=alt.Scale(domain=[*colors], range=[*colors.values()]),
            legend=style.legend("success", columns=3) if known else None,
        ),
    )
    mean = base.mark_rule(strokeDash=[4, 3], color=style.AMBER).encode(y="mean(return):Q")
    return style.drawn(alt.layer(points, mean), 220)
