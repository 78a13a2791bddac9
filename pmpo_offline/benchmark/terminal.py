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


def tables(title: str, rows: Sequence[Row]) -> Iterator[RenderableType]:
    """Yield what a rich console prints: a table a dataset, of language models one of their drift too, and the notes.

    They fit 80 columns: no number is cut, columns of dashes are left out, algorithms with their settings are folded.
    Several shares or rates of noise are sections of the table; what all rows share is in its title.
    """
    for _, group in groupby(rows, lambda row: row["dataset"]):
        mine = list(group)
        lines = cells(mine)
        texts = {name: {line[name] for line in lines} for name in lines[0]}
        shared = [f"{name} {lines[0][name]}" for name in DESCRIPTION if len(texts[name]) == 1]
        yield Text(", ".join([title, *shared]), style="italic")
        several = len({labelling(row) for row in mine}) > 1
        hidden = {*TEXT, "accepted", "noise", *(["seeds"] if len(texts["seeds"]) == 1 else [])}
        shown = [name for name in texts if name not in hidden and texts[name] != {"–"}]
        for names in ([name for name in shown if name not in DRIFT], [name for name in shown if name in DRIFT]):
            if not names:
                continue
            grid = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
            grid.add_column("algorithm", overflow="fold", min_width=9)
            for name in names:
                grid.add_column(name, justify="right", overflow="fold", min_width=max(map(len, texts[name])))
            heading = None if several else labelling(mine[0])
            for row, line in zip(mine, lines, strict=True):
                if labelling(row) != heading:
                    heading = labelling(row)
                    grid.add_section()
                    grid.add_row(Text(heading, style="italic"))
                label = Text(f"{line['algorithm']} {line['settings']}".rstrip())
                grid.add_row(label, *(line[name] for name in names), style="dim" if row["shuffled"] else None)
            yield grid
    yield Text(notes_section(pl.DataFrame(), rows), style="dim")
