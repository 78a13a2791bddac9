"""Margins over the better filtered clone: by hand, and their coverage."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats

from benchmarks.experiments.margins import Design, margins

DESIGN = Design(cell=("noise",), unit="draw", score="score")


def runs(scores: dict[str, list[float]], noise: float = 0.0) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {"arm": arm, "noise": noise, "draw": draw, "score": score}
            for arm, found in scores.items()
            for draw, score in enumerate(found)
        ]
    )


def row(table: pl.DataFrame, arm: str) -> dict[str, object]:
    return table.filter(pl.col("arm") == arm).row(0, named=True)


def test_a_margin_is_over_the_better_filter_with_the_paired_t_interval():
    raw = runs({"pmpo": [9.0, 8.0, 10.0], "bc-accepted": [5.0, 4.0, 6.0], "bc-unrejected": [6.0, 8.0, 7.0]})
    found = row(margins(raw, DESIGN), "pmpo")
    difference = np.array([3.0, 0.0, 3.0])
    low, high = (
        2 + sign * stats.t.ppf(q, 2) * difference.std(ddof=1) / 3**0.5 for sign, q in ((-1, 0.975), (1, 0.9875))
    )
    assert found["filter"] == "bc-unrejected"
    assert [found[name] for name in ("mean", "filter_mean", "margin")] == pytest.approx([9, 7, 2])
    # The difference to the accepted clone is 4 in every draw: its ends are 4, further up than both of these.
    assert found["low"] == pytest.approx(low)
    assert found["high"] == pytest.approx(min(high, 4.0))


def test_wins_needs_both_filters_and_loses_one():
    better = row(
        margins(runs({"pmpo": [9.0, 9.1], "bc-accepted": [5.0, 5.0], "bc-unrejected": [6, 6]}), DESIGN), "pmpo"
    )
    worse = row(margins(runs({"pmpo": [5.5, 5.4], "bc-accepted": [5.0, 5.0], "bc-unrejected": [9, 9]}), DESIGN), "pmpo")
    assert better["verdict"] == "wins"
    assert worse["verdict"] == "loses"


def test_the_correction_widens_by_the_number_of_cells():
    scores = {"pmpo": [9.0, 8.0, 10.0], "bc-accepted": [5.0, 4.0, 6.5]}
    alone = row(margins(runs(scores), DESIGN), "pmpo")
    both = pl.concat([runs(scores), runs(scores, noise=0.1)])
    corrected = row(margins(both, DESIGN), "pmpo")
    assert corrected["low"] < alone["low"]
    assert row(margins(both, DESIGN, comparisons=1), "pmpo")["low"] == pytest.approx(alone["low"])


def test_a_pooled_variance_is_that_of_all_cells():
    quiet, loud = [5.0, 5.0, 5.0], [5.0, 8.0, 2.0]
    raw = pl.concat(
        [runs({"pmpo": quiet, "bc-accepted": [4.0] * 3}), runs({"pmpo": loud, "bc-accepted": [4.0] * 3}, noise=0.1)]
    )
    pooled = margins(raw, Design(cell=("noise",), unit="draw", score="score", pooled=True), comparisons=1)
    deviation = ((0 + 9 + 9) / 4) ** 0.5  # two cells of two degrees of freedom
    width = stats.t.ppf(0.975, 4) * deviation / 3**0.5
    assert pooled.filter(pl.col("arm") == "pmpo")["low"].to_list() == pytest.approx([1 - width, 1 - width])


def test_a_cell_without_a_filter_has_no_margin():
    assert row(margins(runs({"pmpo": [1.0, 2.0]}), DESIGN), "pmpo").get("margin") is None


def test_intervals_cover_the_margin_of_few_runs():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        noise = generator.normal(size=(3, 3))
        scores = {"pmpo": noise[0] + 0.5, "bc-accepted": noise[1], "bc-unrejected": noise[2] - 1.0}
        found = row(margins(runs({arm: list(values) for arm, values in scores.items()}), DESIGN), "pmpo")
        covered += found["low"] <= 0.5 <= found["high"]
    assert covered >= 0.93 * 300
