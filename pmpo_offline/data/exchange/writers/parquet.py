"""To plain Parquet files for polars, DuckDB, pandas and the like.

transitions.parquet    the columns of `data.schema`, and `next_observation` on every row: no joining to be done
episodes.parquet       the columns of `data.schema`
candidates.parquet     where there are candidates
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pmpo_offline.data.dataset import Dataset
from pmpo_offline.data.exchange.writers.steps import blocks
from pmpo_offline.data.exchange.writers.writer import Writer
from pmpo_offline.runtime import progress

NOTE = (
    "One row a step, in order; `next_observation` is what was observed after it, at the end of an episode too. "
    "`label` is true for accept, false for reject and null where unlabelled; an absent `score` is null."
)


def write(folder: Path, dataset: Dataset) -> None:
    """Write the tables into `folder`."""

    def steps() -> Iterator[pa.Table]:
        for rows, block in blocks(dataset):
            yield block.replace_schema_metadata(None)
            progress.report("write rows", rows.stop, len(dataset))

    write_parts(folder / "transitions.parquet", steps())
    for name in ("episodes", "candidates"):
        table: pa.Table | None = getattr(dataset, name)
        if table is not None:
            write_parts(folder / f"{name}.parquet", [table.replace_schema_metadata(None)])


def write_parts(path: Path, parts: Iterable[pa.Table]) -> None:
    """Write tables of one schema, at least one, into one file: a row group each."""
    remaining = iter(parts)
    first = next(remaining)
    with pq.ParquetWriter(path, first.schema, compression="zstd") as writer:
        for part in chain([first], remaining):
            writer.write_table(part)


def loading(dataset: Dataset) -> list[str]:
    """Return the lines of Python that open it."""
    return [
        'import polars; transitions = polars.scan_parquet("transitions.parquet")',
        "import duckdb; duckdb.sql(\"select label, avg(reward) from 'transitions.parquet' group by label\")",
    ]


PARQUET = Writer(write, loading, NOTE)
