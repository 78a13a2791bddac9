"""How much a learner gains over the better of the two filtered clones, with intervals that hold for few runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import stats

from benchmarks.experiments.arms import FILTERS
from pmpo_offline.evaluation.statistics import Estimate, Interval

Verdict = Literal["wins", "loses", ""]


@dataclass(frozen=True)
class Design:
    """How runs of an experiment are paired, and how intervals are made.

    Runs of one unit (a label draw with its training seed) share labels and initial weights in all arms, so that
    differences are taken within units and a t interval over units follows. The margin is over the *better* filter,
    min over filters of the difference in means: its lower end is the least of the lower ends (an intersection-union
    test, which needs no correction), its upper end the least of the upper ends, with half the tail for each filter.
    """

    cell: Sequence[str]
    """Columns that name a cell."""
    unit: str
    """The column of the label draw."""
    score: str
    pooled: bool = False
    """Pool the variance of a paired difference over all cells of an arm and filter: for two or three units."""


def margins(raw: pl.DataFrame, design: Design, *, comparisons: int | None = None, level: float = 0.95) -> pl.DataFrame:
    """Return one row a cell and arm: its mean score, the better filter's, and the margin with its interval.

    Args:
        raw: one row a run, with `arm`, the design's columns and both filters; diverged runs count as they scored.
        design: of the experiment.
        comparisons: that Bonferroni's correction is for; None: the cells of an arm.
        level: of the intervals before the correction.

    Returns:
        The cell, arm, runs, mean, filter (the better one), filter_mean, margin, low, high, verdict. A cell in which
        no filter has any rows has none of the last six.
    """
    wide = raw.group_by(*design.cell, "arm", design.unit).agg(pl.col(design.score).mean())
    filters = {name: wide.filter(pl.col("arm") == name).drop("arm").rename({design.score: name}) for name in FILTERS}
    paired = wide
    for rows in filters.values():
        paired = paired.join(rows, on=[*design.cell, design.unit], how="left", nulls_equal=True)
    found: list[dict[str, object]] = []
    for (arm,), mine in paired.group_by("arm", maintain_order=True):
        cells = list(mine.sort(*design.cell, design.unit).group_by(*design.cell, maintain_order=True))
        tail = (1 - level) / 2 / (len(cells) if comparisons is None else comparisons)
        spread = {name: _pooled([rows for _, rows in cells], design.score, name) for name in FILTERS}
        for values, rows in cells:
            row = {"arm": arm, **dict(zip(design.cell, values, strict=True)), "runs": len(rows)}
            found.append({**row, **_margin(rows, design, tail, spread)})
    return pl.DataFrame(found, infer_schema_length=None)


def t_interval(values: npt.ArrayLike) -> Interval:
    """Return the mean with its 95 % t interval, which is unbounded for a single value."""
    known = np.asarray(values, np.float64)
    if len(known) < 2:
        return Interval(float(known.mean()), -np.inf, np.inf)
    return Estimate(float(known.mean()), float(known.std(ddof=1)) / len(known) ** 0.5, len(known) - 1).interval


def _differences(rows: pl.DataFrame, score: str, name: str) -> np.ndarray:
    return (rows[score] - rows[name]).drop_nulls().to_numpy()


def _pooled(cells: Sequence[pl.DataFrame], score: str, name: str) -> tuple[float, int]:
    """Return the deviation of a paired difference over all cells, and its degrees of freedom."""
    differences = [_differences(rows, score, name) for rows in cells]
    freedom = sum(max(0, len(each) - 1) for each in differences)
    squares = sum(float(((each - each.mean()) ** 2).sum()) for each in differences if len(each))
    return (squares / freedom) ** 0.5 if freedom else np.nan, freedom


def _margin(rows: pl.DataFrame, design: Design, tail: float, spread: dict[str, tuple[float, int]]) -> dict[str, object]:
    ends, means = [], {}
    for name in FILTERS:
        difference = _differences(rows, design.score, name)
        if len(difference) < 2 or rows["arm"][0] == name:
            continue
        deviation, freedom = spread[name] if design.pooled else (float(difference.std(ddof=1)), len(difference) - 1)
        error = deviation / len(difference) ** 0.5
        low = difference.mean() - stats.t.ppf(1 - tail, freedom) * error
        high = difference.mean() + stats.t.ppf(1 - tail / 2, freedom) * error
        ends.append((float(difference.mean()), float(low), float(high)))
        means[name] = float(rows[name].mean())  # type: ignore[arg-type]
    mean = float(rows[design.score].mean())  # type: ignore[arg-type]
    if not ends:
        return {"mean": mean}
    margin, low, high = (min(each) for each in zip(*ends, strict=True))
    best = max(means, key=means.__getitem__)
    verdict: Verdict = "wins" if low > 0 else "loses" if high < 0 else ""
    return {
        "mean": mean, "filter": best, "filter_mean": means[best], "margin": margin, "low": low, "high": high,
        "verdict": verdict,
    }  # fmt: skip
