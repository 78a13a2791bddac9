"""The samples of one policy in a few numbers."""

from __future__ import annotations

import math

import polars as pl

from pmpo_offline.data import References
from pmpo_offline.evaluation.language.drift import distinct
from pmpo_offline.evaluation.rollouts import normalized

MEANS = {
    "return": "reward",
    "success": "success",
    "length": "length",
    "kl": "kl",
    "token_kl": "token_kl",
    "reference_logp": "reference_logp",
    "distinct": "distinct_within",
}
"""Columns of `evaluate_language` whose means are reported, and the names of these."""


def summary(scores: pl.DataFrame, references: References | None) -> dict[str, float | None]:
    """Return the means over all samples, and:

    normalized: 0 is the dataset's reference model, 100 the best of its K responses; None without a reward or
        references.
    reward_error: the standard error of the reward over prompts (samples of one prompt are not independent).
    distinct: different words / words over all samples: compare policies by it for one number of samples only.
    """
    found: dict[str, float | None] = {name: _mean(scores[column]) for column, name in MEANS.items()}
    reward = found["reward"]
    by_prompt = scores.group_by("prompt_id").agg(pl.col("return").mean())["return"]
    spread = by_prompt.std()
    found["reward_error"] = float(spread) / math.sqrt(len(by_prompt)) if isinstance(spread, float) else None
    comparable = reward is not None and references is not None and references.max != references.min
    found["normalized"] = normalized(reward, references.min, references.max) if comparable and references else None
    found["distinct"] = distinct(scores["completion"].to_list())
    return found


def _mean(column: pl.Series) -> float | None:
    mean = column.cast(pl.Float64).mean()
    return float(mean) if isinstance(mean, float) else None
