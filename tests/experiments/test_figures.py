"""Sweeps and groups of datasets: what is drawn and pooled is what the rows say."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from helpers.raw_scores import raw_scores
from matplotlib.figure import Figure

from benchmarks.experiments.figures import Look, pooled, run_scores, sweep
from pmpo_offline.benchmark.table import table
from pmpo_offline.evaluation.statistics import interval


def test_a_sweep_is_drawn_at_its_settings_and_hollow_where_it_collapsed():
    rows = table(
        pl.concat([raw_scores("p", [[60.0]] * 2), raw_scores("q", [[10.0]] * 2, settings='{"beta": 2.0}', beta=2.0)])
    )
    rows = [{**row, "collapsed": row["beta"] == 2.0} for row in rows]
    axes = Figure().add_subplot()
    sweep(axes, rows, "beta", Look("PMPO", "#0072B2"))
    line, *marks = [each for each in axes.lines if len(each.get_xdata()) == 2 or each.get_marker() == "o"]
    assert list(line.get_xdata()) == [1.0, 2.0]
    assert list(line.get_ydata()) == [100.0, 0.0]
    assert [each.get_markerfacecolor() for each in marks] == ["#0072B2", "white"]


def test_runs_are_pooled_within_their_datasets():
    raw = pl.concat(
        [
            raw_scores("a", [[10.0], [60.0]], algo="bc"),
            raw_scores("b", [[35.0], [35.0]], algo="bc", dataset="test/b-v0"),
            raw_scores("c", [[60.0], [60.0]]),
            raw_scores("d", [[35.0], [10.0]], dataset="test/b-v0"),
            raw_scores("e", [[60.0]], algo="dpo"),
        ]
    )
    arms = run_scores(raw, pl.col("algo"))
    np.testing.assert_array_equal(arms["bc"]["test/line-v0"], [0.0, 100.0])
    found = pooled(arms, ["test/line-v0", "test/b-v0"], ["bc"])
    assert found.keys() == {"bc", "pmpo"}, "dpo has no runs on one of the datasets"
    assert found["bc"].better == {}
    assert found["pmpo"].iqm == interval([[50.0, 0.0], [100.0, 100.0]])
    assert found["pmpo"].better["bc"].estimate == pytest.approx((0.75 + 0.25) / 2)
    assert pooled(arms, ["test/line-v0"])["dpo"].iqm.estimate == 100.0
