"""Raw scores as a benchmark stores them, from returns that a test chooses."""

from __future__ import annotations

import polars as pl

from pmpo_offline.benchmark.results import DRIFT, SCHEMA


def raw_scores(key: str, returns: list[list[float]], **columns: object) -> pl.DataFrame:
    """Return the raw scores of one row of the table: `returns` has one list of episode returns a run."""
    constants = {
        "key": key,
        "dataset": "test/line-v0",
        "dataset_sha": "a" * 64,
        "labels_sha": None,
        "labels_here": False,
        "algo": "pmpo",
        "settings": '{"alpha": 0.5, "beta": 1.0}',
        "training": '{"updates": 100}',
        "imbalance": 0.1,
        "balance": "labels",
        "share": 0.1001,
        "noise": 0.0,
        "shuffled": False,
        "reference": False,
        "filtered": False,
        "reference_min": 10.0,
        "reference_max": 60.0,
        "beta": 1.0,
        "beta_min": 0.65,
        "beta_collapse": 0.1,
        "reach": 1.0,
        "loss": 0.5,
        "versions": '{"pmpo-offline": "0.1.0"}',
    } | columns
    records = [
        {
            "seed": seed,
            "episode": episode,
            "layout": f"l{episode}",
            "return": value,
            "success": value > 50,
            "length": 9,
        }
        | dict.fromkeys(DRIFT)
        for seed, run in enumerate(returns)
        for episode, value in enumerate(run)
    ]
    frame = pl.DataFrame(records).with_columns(pl.lit(v, SCHEMA[name]).alias(name) for name, v in constants.items())
    return frame.select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())
