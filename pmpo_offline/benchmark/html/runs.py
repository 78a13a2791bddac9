"""What the page shows of one row of the table: its facts, its training runs, and their episodes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
import polars as pl

from pmpo_offline.benchmark.episodes import SAMPLE
from pmpo_offline.benchmark.html import steps
from pmpo_offline.benchmark.methods import methods
from pmpo_offline.benchmark.report import labelling
from pmpo_offline.benchmark.table import Row
from pmpo_offline.benchmark.table import runs as scored_runs
from pmpo_offline.runtime import progress

MEASURES = {
    **{"score": 1, "return": 3, "success": 2, "reach": 2, "loss": 3},
    **{"kl": 2, "distinct": 2, "reference_logp": 2, "perplexity": 1},
}
"""Columns of a run, and how many decimals are shown."""
DIGITS = 4
"""Significant digits of an episode's return."""


Done = dict[tuple[str, int], dict[str, Any]]
"""By key of a row and seed what a run did: "answers" of a language model, or some "episodes" or "samples"."""


def details(raw: pl.DataFrame, rows: Sequence[Row], most: int, done: Done) -> list[dict[str, Any]]:
    """Return a JSON object a row of the table, in their order.

    Args:
        raw: the raw scores.
        rows: of the table.
        most: episodes of a run that are listed, the first ones; all are counted.
        done: what runs did.
    """
    listed = {str(key): frame for (key,), frame in _runs(raw, most).group_by(["key"], maintain_order=True)}
    return [
        {
            "key": row["key"],
            "title": name,
            "facts": facts(row),
            "episodes": row["episodes"],
            **_columns(listed[row["key"]]),
            "done": {seed: what for (key, seed), what in done.items() if key == row["key"]},
        }
        for row, name in zip(rows, methods(rows), strict=True)
    ]


def did(tables: Sequence[Mapping[str, pl.DataFrame]], most: int) -> Done:
    """Return what so many runs did: each row's first run, then each row's second, and so on.

    `tables` are of answers and of episodes (`benchmark.episodes`), by key of a row.
    """
    runs = [
        [(str(key), int(seed), table) for seed in table["seed"].unique().sort()]
        for each in tables
        for key, table in each.items()
    ]
    chosen = [run for turn in zip_longest(*runs) for run in turn if run is not None][:most]
    found: Done = {}
    for number, (key, seed, table) in enumerate(chosen):
        progress.report("what runs did", number, len(chosen))
        found[key, seed] = _did(table.filter(pl.col("seed") == seed))
    return found


def _did(run: pl.DataFrame) -> dict[str, Any]:
    if "learned" in run.columns:
        return {"answers": run.drop("seed").to_dicts()}
    episodes = run.to_dicts()
    return {"samples": _samples(episodes)} if run["which"][0] == SAMPLE else {"episodes": [*map(_played, episodes)]}


def _played(episode: Mapping[str, Any]) -> dict[str, Any]:
    """Return an episode as the page draws it: its steps, the series over them, and pictures."""
    step, reward = np.array(episode["step"]), np.array(episode["reward"])
    action, observation = (np.array(episode[name]).reshape(-1, len(step)).T for name in ("action", "observation"))
    return {
        **{name: episode[name] for name in ("which", "episode", "return", "step")},
        "series": steps.series(reward, action, observation),
        "film": steps.filmstrip(episode["task"], step, observation),
    }


def _samples(episodes: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Return the first two dimensions of actions, and their rewards."""
    numbers = ((*(each["action"] * 2)[:2], *each["reward"]) for each in episodes)
    return [dict(zip(("first", "second", "reward"), each, strict=True)) for each in numbers]


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
    return scored_runs(raw).select("key", "seed", *MEASURES).join(episodes, on=["key", "seed"], maintain_order="left")


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
