"""The tables of a benchmark in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import polars as pl
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from pmpo_offline.benchmark.report import DRIFT, TEXT, cells, labelling, notes_section
from pmpo_offline.benchmark.results import Row

DESCRIPTION = ("dataset", "accepted", "noise", "seeds")
"""Columns that the terminal puts into a table's title, if all rows agree."""


NARROWEST = 9
"""Width of the column of algorithms where the terminal is narrow: longer names are folded."""


def tables(title: str, rows: Sequence[Row], width: int) -> Iterator[RenderableType]:
    """Yield what a rich console prints: the tables of each dataset, of language models one of their drift too, notes.

    No number is cut: columns that do not fit beside each other follow in a further table below. Columns of dashes are
    left out, algorithms with their settings are folded. Several shares or rates of noise are sections of the table;
    what all rows share is in its title.

    Args:
        title: of the benchmark.
        rows: of its table.
        width: of the terminal, in characters.
    """
    for _, group in groupby(rows, lambda row: row["dataset"]):
        mine = list(group)
        lines = cells(mine)
        texts = {name: {line[name] for line in lines} for name in lines[0]}
        shared = [f"{name} {lines[0][name]}" for name in DESCRIPTION if len(texts[name]) == 1]
        yield Text(", ".join([title, *shared]), style="italic")
        hidden = {*TEXT, "accepted", "noise", *(["seeds"] if len(texts["seeds"]) == 1 else [])}
        shown = [name for name in texts if name not in hidden and texts[name] != {"–"}]
        for kind in ([name for name in shown if name not in DRIFT], [name for name in shown if name in DRIFT]):
            for names in _fitting(kind, lines, width):
                yield _grid(mine, lines, names)
    yield Text(notes_section(pl.DataFrame(), rows), style="dim")


def _fitting(names: Sequence[str], lines: Sequence[dict[str, str]], width: int) -> Iterator[list[str]]:
    """Yield the columns in groups that fit the width beside the algorithms; a single one is never left out."""
    room = width - NARROWEST - 4
    group: list[str] = []
    left = room
    for name in names:
        needed = _width(name, lines) + 2
        if group and needed > left:
            yield group
            group, left = [], room
        group.append(name)
        left -= needed
    if group:
        yield group


def _width(name: str, lines: Sequence[dict[str, str]]) -> int:
    return max(len(name), *(len(line[name]) for line in lines))


def _grid(rows: Sequence[Row], lines: Sequence[dict[str, str]], names: Sequence[str]) -> Table:
    """Return one table: the algorithms with these columns, in sections by labelling."""
    grid = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    grid.add_column("algorithm", overflow="fold", min_width=NARROWEST)
    for name in names:
        grid.add_column(name, justify="right", overflow="fold", min_width=_width(name, lines))
    several = len({labelling(row) for row in rows}) > 1
    heading = None if several else labelling(rows[0])
    for row, line in zip(rows, lines, strict=True):
        if labelling(row) != heading:
            heading = labelling(row)
            grid.add_section()
            grid.add_row(Text(heading, style="italic"))
        label = Text(f"{line['algorithm']} {line['settings']}".rstrip())
        grid.add_row(label, *(line[name] for name in names), style="dim" if row["shuffled"] else None)
    return grid
