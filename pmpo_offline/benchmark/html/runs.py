"""What the page shows of one row of the table: its facts, its training runs, and their episodes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from pmpo_offline.benchmark.methods import methods
from pmpo_offline.benchmark.report import labelling
from pmpo_offline.benchmark.table import Row, runs

MEASURES = {
    **{"score": 1, "return": 3, "success": 2, "reach": 2, "loss": 3},
    **{"kl": 2, "distinct": 2, "reference_logp": 2, "perplexity": 1},
}
"""Columns of a run, and how many decimals are shown."""
DIGITS = 4
"""Significant digits of an episode's return."""


def details(raw: pl.DataFrame, rows: Sequence[Row], most: int, answers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a JSON object a row of the table, in their order.

    Args:
        raw: the raw scores.
        rows: of the table.
        most: episodes of a run that are listed, the first ones; all are counted.
        answers: prompts with answers, by key and run.
    """
    listed = {str(key): frame for (key,), frame in _runs(raw, most).group_by(["key"], maintain_order=True)}
    return [
        {
            "key": row["key"],
            "title": name,
            "facts": facts(row),
            "episodes": row["episodes"],
            **_columns(listed[row["key"]]),
        }
        | ({"answers": answers[row["key"]]} if row["key"] in answers else {})
        for row, name in zip(rows, methods(rows), strict=True)
    ]


def facts(row: Row) -> list[tuple[str, str]]:
    """Return the names and values that say what a row is."""
    named = {
        "data": f"{row['dataset']}, {labelling(row)}",
        "settings": _assigned(row["settings"]),
        "training": _assigned(row["training"]),
        "versions": ", ".join(f"{name} {version}" for name, version in row["versions"].items()),
        "hash of the data": row["dataset_sha"],
        "raw scores": f"raw/{row['key']}.parquet",
    }
    return [(name, value) for name, value in named.items() if value]


def _assigned(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value if isinstance(value, str) else json.dumps(value)}" for name, value in values.items()
    )


def _runs(raw: pl.DataFrame, most: int) -> pl.DataFrame:
    """Return a record a run, with its measures and the lists of its episodes."""
    episodes = (
        raw.sort("key", "seed", "episode")
        .group_by("key", "seed", maintain_order=True)
        .agg(
            pl.col("return").head(most).round_sig_figs(DIGITS).alias("returns"),
            pl.col("success").head(most).cast(pl.Int8).alias("successes"),
            pl.col("layout").head(most).alias("layouts"),
        )
    )
    return runs(raw).select("key", "seed", *MEASURES).join(episodes, on=["key", "seed"], maintain_order="left")


def _columns(own: pl.DataFrame) -> dict[str, Any]:
    shown = [name for name in MEASURES if own[name].null_count() < len(own)]
    layouts = own["layouts"].to_list()
    rounded = (pl.col(name).round(MEASURES[name]) for name in shown)
    equal = all(each == layouts[0] for each in layouts)
    return {
        "measures": shown,
        "runs": [[seed, *values] for seed, *values in own.select("seed", *rounded).rows()],
        "returns": own["returns"].to_list(),
        "successes": own["successes"].to_list(),
        "layouts": layouts[:1] if equal else layouts,
    }
