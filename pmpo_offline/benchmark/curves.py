"""Learning curves: the metrics over updates of every run of a row, `<output>/curves/<key>.parquet`.

Columns: seed, step, and a float64 column a metric (`training.tracking`). No score depends on them, and rows from before
they were recorded have none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from pmpo_offline.benchmark.plan import Missing, stack_name
from pmpo_offline.benchmark.results import Results
from pmpo_offline.training.tracking import MetricsFile, read_metrics


def stack_metrics(results: Results, rows: Missing, title: str) -> MetricsFile:
    """Return the file in which a stack of runs records its metrics while it trains; `--watch` shows its name."""
    name = re.sub(r"[^\w. -]+", "-", title)
    return MetricsFile(results.checkpoint(f"{stack_name(rows)} {name}.csv"))


def store_stack(results: Results, recorded: MetricsFile, rows: Missing, seeds: range) -> None:
    """Store the curves of every row of a stack: its runs are for each setting, for each seed."""
    table = recorded.read()
    for number, key in enumerate(rows if table is not None else ()):
        own = table.filter(pl.col("run") // len(seeds) == number)  # type: ignore[union-attr]
        _write(results, key, own.with_columns(seed=seeds.start + pl.col("run") % len(seeds)))


def store_runs(results: Results, key: str, recorded: Mapping[int, Path]) -> None:
    """Store the curves of a row whose runs trained one by one, by seed."""
    read = ((seed, read_metrics(path)) for seed, path in recorded.items())
    tables = [table.with_columns(seed=pl.lit(seed, pl.Int64)) for seed, table in read if table is not None]
    if tables:
        _write(results, key, pl.concat(tables, how="diagonal"))


def load(results: Results, keys: Sequence[str]) -> dict[str, pl.DataFrame]:
    """Return the curves of rows by key, of those that have any that can be read."""
    numbers = pl.col("seed", "step").cast(int), pl.exclude("seed", "step").cast(float)
    return results.read_beside("curves", keys, lambda table: table.select(numbers).sort("seed", "step"))


def _write(results: Results, key: str, table: pl.DataFrame) -> None:
    results.write_beside("curves", key, table.select("seed", "step", pl.exclude("seed", "step", "run")))
