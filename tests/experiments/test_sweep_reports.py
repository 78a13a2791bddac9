"""Pages of the sweeps over labels: what they say is what the runs say."""

from __future__ import annotations

import itertools
import json

import numpy as np
import polars as pl
import pytest

from benchmarks.experiments.coverage import report as coverage
from benchmarks.experiments.coverage.run import ACCEPTS, ARMS, NOISE, REJECTS
from benchmarks.experiments.imbalance import report as imbalance
from benchmarks.experiments.sweeps import report as sweeps


@pytest.fixture(scope="module")
def runs() -> pl.DataFrame:
    """PMPO .2 above both filters where rejects are all labelled and labels clean, .3 below elsewhere."""
    generator = np.random.default_rng(0)
    rows = []
    for rejects, accepts, noise, draw in itertools.product(REJECTS, ACCEPTS, NOISE, (0, 1, 2)):
        for arm in ARMS:
            gain = 0.0
            if arm == "PMPO AR":
                gain = 0.2 if rejects == 1 and not noise else -0.3
            success = 0.6 + gain + 0.01 * generator.normal()
            cell = {"arm": arm, "draw": draw, "rejects": rejects, "accepts": accepts, "noise": noise}
            rows.append({**cell, "success": success, "diverged": False, "cpu_seconds": 1.0})
    return pl.DataFrame(rows)


def test_the_coverage_page_marks_what_wins_and_loses(runs):
    tuned = {"PMPO AR": [{"setting": {"alpha": 0.5, "multiple": 1.0}, "success": 0.5}]}
    table = coverage.margins(runs.filter(pl.col("arm") != "bc"), coverage.DESIGN)
    page = coverage.page(runs, table, tuned)
    first = page.index("### The better filter")
    lines = [line for line in page[first : page.index("### By pattern")].splitlines() if line.startswith("| 1 |")]
    assert len(lines) == 4
    assert ["**+0.2" in line or "**+0.1" in line for line in lines] == ["| 0 |" in line for line in lines]
    assert all("*-0.3" in line or "*-0.2" in line for line in lines if "| 0.1 |" in line)
    assert "α 0.5, β / bound 1" in page
    assert len(coverage.picture(table).axes[0].texts) == 16 * (len(ARMS) - 1) + 8 + 4 + 3


def test_one_beta_is_chosen_on_other_runs_than_are_scored():
    rows = []
    for beta, share, seed in itertools.product((0.5, 1.0), (0.5, 0.9), range(10)):
        score = {0.5: 10.0, 1.0: 20.0}[beta] if seed >= 5 else {0.5: 90.0, 1.0: 30.0}[beta]
        setting = json.dumps({"normalize": "set", "beta": beta})
        cell = {"function": "f", "kind": "labels", "setting": setting, "share": share, "seed": seed, "score": score}
        rows.append(cell)
    found = sweeps.fixed_beta(pl.DataFrame(rows))
    assert found["chosen"].unique().to_list() == [1.0]  # the best of runs 5 to 9
    assert found["score"].unique().to_list() == [30.0]
    assert found["oracle"].unique().to_list() == [90.0]
    assert sorted(found["seed"].unique()) == [0, 1, 2, 3, 4]


def test_the_area_is_the_mean_over_the_logarithm_of_the_labels():
    part = pl.DataFrame({"seed": [0, 0, 0], "coverage": [1.0, 0.01, 0.1], "score": [80.0, 0.0, 40.0]})
    assert sweeps.areas(part).to_list() == pytest.approx([40.0])


def test_the_map_counts_the_cells_that_each_learner_wins_and_loses():
    generator = np.random.default_rng(0)
    rows = []
    for kind, share, flips, seed in itertools.product(("labels", "rows"), (0.1, 0.9), (0.0, 0.1), range(4)):
        gains = {"bc-accepted": -5.0, "bc-unrejected": 0.0, "KTO": 20.0 if kind == "rows" else -20.0}
        for arm, gain in gains.items():
            score = 50 + gain + 0.1 * generator.normal()
            cell = {"arm": arm, "kind": kind, "coverage": 1.0, "flips": flips, "share": share, "seed": seed}
            rows.append({**cell, "score": score, "diverged": False})
    raw = pl.DataFrame(rows)
    table = imbalance.margins(raw, imbalance.DESIGN)
    text = imbalance.section("name", raw, table, {"KTO": [{"setting": {"beta": 1.0}, "score": 1.0}]})
    assert "| KTO | beta: 1.0 | 0 / 2 of 2 | 0 / 2 of 2 | 2 / 0 of 2 | 2 / 0 of 2 |" in text
    grid = imbalance.picture(table, "Name").axes[:2]
    shown = [np.ma.filled(axes.images[0].get_array(), np.nan) for axes in grid]
    assert (shown[0] < 0).all()
    assert (shown[1] > 0).all()
