"""A writer: transitions as one CSV file, without vectors."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from pmpo_offline.data import Dataset
from pmpo_offline.data.exchange.writers import Writer


def write(folder: Path, dataset: Dataset) -> None:
    """Write the scalar columns of the transitions."""
    table = pl.from_arrow(dataset.table)
    assert isinstance(table, pl.DataFrame)
    table.select(pl.exclude("observation", "action")).write_csv(folder / "steps.csv")


CSV = Writer(
    "transitions as one CSV file, without vectors",
    write,
    loading=lambda dataset: ['import polars; steps = polars.read_csv("steps.csv")'],
    note="One row a step; observations and actions are left out.",
)
