"""The table: raw scores in, one row an algorithm, setting and condition out.

A run's score is the mean over its evaluation episodes of 100 (return − min) / (max − min), with the dataset's reference
returns; without references it is the mean return itself, and `metric` says so. Rows state the interquartile mean over
runs with its 95 % bootstrap interval (see `evaluation.statistics`).

Language models can earn reward with texts that nobody wants, so their rows also say how far they went from the
reference model, as means over samples (`evaluation.language.drift`), and whether they collapsed:

    kl               nats a sample, the sum of the exact divergences at its tokens
    distinct         different words among a sample's words; collapsed below half of the reference row's
    reference_logp   nats a token; collapsed below twice the reference row's, where its perplexity is the square
    perplexity       of the trained model on held-out prose
"""

from __future__ import annotations

import json
from typing import Any, cast

import polars as pl

from pmpo_offline.benchmark.results import DRIFT
from pmpo_offline.evaluation.normalized import normalized
from pmpo_offline.evaluation.statistics import bootstrap, probability_of_improvement

Row = dict[str, Any]
CONTROL = " (shuffled)"
CONDITION = ["dataset", "dataset_sha", "imbalance", "noise"]
REPEATING = 0.5
"""Whose texts have less than this share of the reference row's different words has collapsed onto a few of them."""
GARBAGE = 2.0
"""Whose texts cost the reference model more than this multiple of the reference row's nats has left the language."""
_EPISODE = ("seed", "episode", "layout", "return", "success", "length", *DRIFT)


def table(raw: pl.DataFrame) -> list[Row]:
    """Return the rows of the table, each condition's reference first, then by algorithm and settings.

    Keys of a row: `dataset, algo, settings, imbalance, noise, seeds, metric, iqm, low, high, mean`, and beside them
    `share` (accepted share achieved), `success`, `return`, `episodes` (a run), `shuffled`, `reference`, `improvement`
    (`[estimate, low, high]` of the probability that a run beats one of the reference; None without a reference),
    `beta`, `beta_min`, `bounded` (None where no bound applies), `training`, `dataset_sha`, `versions`, `key`; and
    `kl`, `distinct`, `reference_logp`, `perplexity`, `collapsed` (None for what is no language model; the last also
    without a reference to compare with). Two may be infinite, which report.json and `--json` write as null: a
    `beta_min` that no β meets (`bounded` is then false, and null where no bound applies), and the `perplexity` of
    logits that have exploded (tables say inf, and a dash where the tokens cannot write prose).
    """
    rows: list[Row] = []
    for _, condition in runs(raw).group_by(CONDITION, maintain_order=True):
        reference = condition.filter(pl.col("reference") & ~pl.col("shuffled"))
        for _, arm in condition.group_by("key", maintain_order=True):
            rows.append(_row(arm, reference))
    return sorted(rows, key=_order)


def runs(raw: pl.DataFrame) -> pl.DataFrame:
    """Return one record a training run, its score the mean over episodes."""
    scaled = normalized(pl.col("return"), pl.col("reference_min"), pl.col("reference_max"))
    score = pl.when(scaled.is_null()).then(pl.col("return")).otherwise(scaled)
    per_row = [name for name in raw.columns if name not in _EPISODE]
    return (
        raw.sort("key", "seed", "episode")  # sums and resampling in one order, whatever order the files were read in
        .with_columns(score=score)
        .group_by(*per_row, "seed", maintain_order=True)
        .agg(
            pl.col("score", "return", "success", "distinct", "reference_logp", "perplexity").mean(),
            # A sample without a token has no divergence a token, and a log-ratio of 0.
            (pl.col("token_kl") * pl.col("length")).fill_null(pl.col("kl")).mean().alias("kl"),
            episodes=pl.len(),
        )
    )


def _row(arm: pl.DataFrame, reference: pl.DataFrame) -> Row:
    """Return one row from its runs and the reference's runs on the same data."""
    first = arm.row(0, named=True)
    interval = bootstrap([arm["score"].to_numpy()])
    improvement = None
    if len(reference) and first["key"] not in reference["key"]:
        better = probability_of_improvement([arm["score"].to_numpy()], [reference["score"].to_numpy()])
        improvement = [better.estimate, better.low, better.high]
    beta, beta_min = first["beta"], first["beta_min"]
    return {
        "dataset": first["dataset"],
        "algo": first["algo"] + (CONTROL if first["shuffled"] else ""),
        "settings": json.loads(first["settings"]),
        "imbalance": first["imbalance"],
        "noise": first["noise"],
        "seeds": len(arm),
        "metric": "return" if first["reference_max"] is None else "normalized_score",
        "iqm": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "mean": arm["score"].mean(),
        "success": arm["success"].mean(),
        "return": arm["return"].mean(),
        "improvement": improvement,
        "beta": beta,
        "beta_min": beta_min,
        "bounded": None if beta is None or beta_min is None else beta >= beta_min,
        "share": first["share"],
        "episodes": first["episodes"],
        "shuffled": first["shuffled"],
        "reference": first["reference"],
        "training": json.loads(first["training"]),
        "versions": json.loads(first["versions"]),
        "dataset_sha": first["dataset_sha"],
        "key": first["key"],
        **_drift(arm, reference),
    }


def _drift(arm: pl.DataFrame, reference: pl.DataFrame) -> Row:
    """Return what only language models have, None for the others."""

    def mean(runs: pl.DataFrame, name: str) -> float | None:
        return cast(float | None, runs[name].mean())

    drift: Row = {name: mean(arm, name) for name in ("kl", "distinct", "reference_logp", "perplexity")}
    few = _below(drift["distinct"], mean(reference, "distinct"), REPEATING)
    strange = _below(drift["reference_logp"], mean(reference, "reference_logp"), GARBAGE)
    return {**drift, "collapsed": None if few is None and strange is None else bool(few or strange)}


def _below(value: float | None, usual: float | None, factor: float) -> bool | None:
    return None if value is None or usual is None else value < factor * usual


def _order(row: Row) -> tuple[Any, ...]:
    condition = row["dataset"], row["imbalance"] is None, row["imbalance"] or 0.0, row["noise"]
    # Numbers sort as numbers; a setting that is a name in one row is a name in every row of its algorithm.
    return (*condition, not row["reference"], row["algo"], [*row["settings"].values()], row["key"])
