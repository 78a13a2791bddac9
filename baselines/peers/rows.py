"""Rows of a table for runs that another library trained, beside ours on the same data: what `submit` takes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from pmpo_offline.benchmark.results import SCHEMA, Results
from pmpo_offline.runtime.hashing import hash_json

_OF_OURS = ("settings", "training", "reach", "loss", "beta", "beta_min", "beta_collapse")
"""Columns that say how our row was trained."""


def add_row(
    results: Results, name: str, beside: pl.DataFrame, runs: Iterable[pl.DataFrame], how: Mapping[str, Any]
) -> None:
    """Write the scores of another library's runs into a results folder.

    Args:
        results: the folder.
        name: of the row's algorithm.
        beside: raw scores of one of our rows on the same data, from which the data and references are taken.
        runs: the raw scores of each run, seed by seed, with the columns that an episode has (`return`, `success`, …).
        how: library, version and settings of the training.
    """
    row = {"algo": name, "training": json.dumps(dict(how)), "settings": "{}", "reference": False, "filtered": False}
    changed = {**dict.fromkeys(_OF_OURS), **row}
    ours = beside.head(1).with_columns(pl.lit(value, SCHEMA[column]).alias(column) for column, value in changed.items())
    scores = pl.concat(run.with_columns(seed=pl.lit(seed)) for seed, run in enumerate(runs))
    constants = ours.select(pl.exclude(*scores.columns, "key"))
    results.write(hash_json([row, beside["dataset_sha"][0]])[:16], scores.join(constants, how="cross"))
