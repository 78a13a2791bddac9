"""The table of a benchmark, computed from the raw scores alone.

A run's score is the mean over its evaluation episodes of 100 (return − min) / (max − min), with the dataset's reference
returns; without references it is the mean return itself, and `metric` says so. Rows state the interquartile mean over
runs with its 95 % interval (see `evaluation.statistics`), and compare it with the better of the filtered clones of the
same data, because a method is worth something where it beats that.

Language models can earn reward with useless texts, so their rows also state the drift from the reference model, as
means over samples (`evaluation.language.drift`), and whether they collapsed:

    kl               nats a sample, the sum of the exact divergences at its tokens
    distinct         different words among a sample's words; collapsed below half of the reference row's
    reference_logp   nats a token; collapsed below twice the reference row's, where its perplexity is the square
    perplexity       of the trained model on held-out prose
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import polars as pl

from pmpo_offline.benchmark.results import CONDITION, DRIFT, TRAINING
from pmpo_offline.evaluation.statistics import Estimate, estimate, holm, normalized, probability_of_improvement
from pmpo_offline.objectives.stability import Regime, regime
from pmpo_offline.training.control.config import has_diverged

Row = dict[str, Any]
"""A row of the table; its keys are documented in `table`."""
CONTROL = " (shuffled)"
REPEATING = 0.5
"""A policy with less than this share of the reference row's different words repeats a few of them."""
GARBAGE = 2.0
"""A policy has left the language if its texts cost the reference model more than this multiple of its own nats."""
_EPISODE = ("seed", "episode", "layout", "return", "success", "length", *DRIFT, *TRAINING)


def table(raw: pl.DataFrame) -> list[Row]:
    """Return the rows of the table, each condition's reference first, then by algorithm and settings.

    Keys of a row: `dataset, algo, settings, imbalance, balance, noise, seeds, metric, iqm, low, high, mean`, and beside
    them `share` (accepted share achieved), `success`, `return`, `episodes` (a run), `shuffled`, `reference`,
    `filtered`; `compared` (the name of what a row is compared with: of the filtered clones of its data the one of the
    higher IQM, else the reference; None for that row itself and where neither is), `improvement` (`[estimate, low,
    high]` of the probability that a run beats one of that), `margin` (the same of the difference of their IQMs) and
    `p_value` (of no difference, corrected for the number of rows; also None where either has a single run); `beta`,
    `beta_min`, `beta_collapse`, `bounded` (None where no bound applies), `regime` (`stability.Regime`, None where it is
    not known), `diverged` (runs whose actions or loss left all bounds), `training`, `dataset_sha`, `labels_sha`,
    `labels_here`, `versions`, `key`; and `kl`, `distinct`, `reference_logp`, `perplexity`, `collapsed` (None for what
    is no language model; the last also without a reference to compare with).
    Two may be infinite, which report.json and `--json` write as null: a `beta_min` that no β meets (`bounded` is then
    false, and null where no bound applies), and the `perplexity` of logits that have exploded (tables print inf, and a
    dash where the tokens cannot write prose).
    """
    rows = []
    for condition in runs(raw).partition_by(CONDITION):
        arms = [Arm(arm, estimate([arm["score"]])) for arm in condition.partition_by("key", maintain_order=True)]
        reference = condition.filter(pl.col("reference") & ~pl.col("shuffled"))
        against = _against(arms)
        rows += [_row(arm, against) | _drift(arm.runs, reference) for arm in arms]
    compared = [row for row in rows if row["p_value"] is not None]
    for row, corrected in zip(compared, holm([row["p_value"] for row in compared]), strict=True):
        row["p_value"] = corrected
    return sorted(rows, key=_order)


@dataclass(frozen=True)
class Arm:
    """The runs of one row of the table."""

    runs: pl.DataFrame
    iqm: Estimate

    @property
    def first(self) -> dict[str, Any]:
        """The first of the runs: what is equal in all of them."""
        return self.runs.row(0, named=True)


def _against(arms: Sequence[Arm]) -> Arm | None:
    """Return what the rows of a condition are compared with: the better filtered clone, else the reference, if any."""
    plain = [arm for arm in arms if not arm.first["shuffled"]]
    filtered = [arm for arm in plain if arm.first["filtered"]]
    return max(
        filtered or [arm for arm in plain if arm.first["reference"]], key=lambda arm: arm.iqm.value, default=None
    )


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
            pl.col(TRAINING).first(),
            episodes=pl.len(),
        )
    )


def _row(arm: Arm, against: Arm | None) -> Row:
    """Return one row from its runs and those of what it is compared with."""
    first, scores = arm.first, arm.runs["score"]
    compared: Row = dict.fromkeys(("compared", "improvement", "margin", "p_value"))
    if against is not None and against is not arm:
        margin = arm.iqm - against.iqm
        compared = {
            "compared": against.first["algo"],
            "improvement": [*astuple(probability_of_improvement([scores], [against.runs["score"]]))],
            "margin": [*astuple(margin.interval)],
            # A single run shows no spread between runs: no difference from it can be tested.
            "p_value": margin.p_value if min(len(scores), len(against.runs)) > 1 else None,
        }
    beta, beta_min = first["beta"], first["beta_min"]
    return {
        "dataset": first["dataset"],
        "algo": first["algo"] + (CONTROL if first["shuffled"] else ""),
        "settings": json.loads(first["settings"]),
        **{name: first[name] for name in ("imbalance", "balance", "noise")},
        "seeds": len(scores),
        "metric": "return" if first["reference_max"] is None else "normalized_score",
        **dict(zip(("iqm", "low", "high"), astuple(arm.iqm.interval), strict=True)),
        "mean": scores.mean(),
        "success": arm.runs["success"].mean(),
        "return": arm.runs["return"].mean(),
        **compared,
        "beta": beta,
        "beta_min": beta_min,
        "beta_collapse": first["beta_collapse"],
        "bounded": None if beta is None or beta_min is None else beta >= beta_min,
        "regime": _regime(beta, beta_min, first["beta_collapse"]),
        "diverged": sum(has_diverged(*ended) for ended in arm.runs.select(TRAINING).iter_rows()),
        **{name: first[name] for name in ("share", "episodes", "shuffled", "reference", "filtered")},
        **{name: json.loads(first[name]) for name in ("training", "versions")},
        **{name: first[name] for name in ("dataset_sha", "labels_sha", "labels_here", "key")},
    }


def _regime(beta: float | None, bound: float | None, collapse: float | None) -> Regime | None:
    """Return the regime of β; None where no bound applies, and below it in older files, which lack the threshold."""
    if beta is None or bound is None or (collapse is None and beta < bound < math.inf):
        return None
    return regime(beta, bound, collapse)


def _drift(arm: pl.DataFrame, reference: pl.DataFrame) -> Row:
    """Return what only language models have, None for the others."""
    means = pl.col("kl", "distinct", "reference_logp", "perplexity").mean()
    drift, usual = (frame.select(means).row(0, named=True) for frame in (arm, reference))
    below = [
        drift[name] < factor * usual[name]
        for name, factor in (("distinct", REPEATING), ("reference_logp", GARBAGE))
        if drift[name] is not None and usual[name] is not None
    ]
    return {**drift, "collapsed": any(below) if below else None}


def _order(row: Row) -> tuple[Any, ...]:
    condition = row["dataset"], row["imbalance"] is None, row["imbalance"] or 0.0, row["balance"], row["noise"]
    # Numbers sort as numbers; a setting that is a name in one row is a name in every row of its algorithm.
    return (*condition, not row["reference"], row["algo"], [*row["settings"].values()], row["key"])
