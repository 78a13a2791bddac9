from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from pmpo_offline.benchmark.results import DRIFT, SCHEMA

DECLARATION = """
title = "{title}"
objective = "{objective}"
rows = "all"
start = "reference"
[settings]
{settings}
[training]
updates = 100
"""


@pytest.fixture
def declare(tmp_path: Path) -> Callable[..., str]:
    """Write an algorithm of one's own and return its path, which serves wherever an algorithm's name does."""

    def write(name: str, objective: str, settings: str = "") -> str:
        path = tmp_path / "rgb-stacking" / f"{name}.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(DECLARATION.format(title=name, objective=objective, settings=settings))
        return str(path)

    return write


@pytest.fixture
def scores() -> Callable[..., pl.DataFrame]:
    """Make the raw scores of one row of the table: `returns` has one list of episode returns a run."""

    def make(key: str, returns: list[list[float]], **columns: object) -> pl.DataFrame:
        constants = {
            "key": key,
            "dataset": "test/line-v0",
            "dataset_sha": "a" * 64,
            "algo": "pmpo",
            "settings": '{"alpha": 0.5, "beta": 1.0}',
            "training": '{"updates": 100}',
            "imbalance": 0.1,
            "share": 0.1001,
            "noise": 0.0,
            "shuffled": False,
            "reference": False,
            "reference_min": 10.0,
            "reference_max": 60.0,
            "beta": 1.0,
            "beta_min": 0.65,
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

    return make
