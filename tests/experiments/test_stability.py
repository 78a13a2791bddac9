"""The committed experiment, in small: what the bound predicts is what a run does, on both sides of it."""

from __future__ import annotations

import math
from pathlib import Path

import polars as pl
import pytest

from benchmarks.experiments.stability import bandit, gaussian, report
from benchmarks.experiments.stability.experiment import verdicts

SIDES = (0.5, 0.8, 1.25, 2.0)


@pytest.mark.parametrize(("arm", "updates"), [(0, 300), (1, 150), (2, 150), (3, 250), (4, 300), (5, 400)])
def test_bandit_collapses_below_its_bound_and_not_above(arm: int, updates: int) -> None:
    runs = verdicts(bandit.run(bandit.ARMS[arm], SIDES, updates=updates))
    assert len(runs) == len(SIDES) * 5
    wrong = runs.filter(pl.col("collapsed") != pl.col("predicted"))
    assert wrong.is_empty(), wrong
    for row in runs.filter(pl.col("multiple") > 1).iter_rows(named=True):
        reward, kl = bandit.optimum(bandit.ARMS[arm], row["beta"], row["seed"])
        assert row["relative_reward"] == pytest.approx(reward, abs=0.08)
        assert row["kl"] == pytest.approx(kl, abs=0.1)


@pytest.mark.parametrize(("arm", "updates"), [(0, 150), (3, 300)])
def test_gaussian_collapses_below_its_bound_and_not_above(arm: int, updates: int) -> None:
    runs = verdicts(gaussian.run(gaussian.ARMS[arm], (0.6, 1.5), updates=updates))
    wrong = runs.filter(pl.col("collapsed") != pl.col("predicted"))
    assert wrong.is_empty(), wrong


@pytest.mark.parametrize(
    ("fall", "collapsed"),
    [
        (lambda step: step, True),  # steady
        (lambda step: 40 * (1 - 0.5**step), False),  # far, but come to rest
        (lambda step: 0.1 * step, False),  # less than a nat in all
        (lambda step: 1e6 if step else 0.0, True),  # beyond what single precision can follow
        (lambda step: math.inf if step == 8 else 0.0, True),
        (lambda step: math.nan if step == 8 else 0.0, True),
        (lambda step: -step, False),  # rises
    ],
)
def test_verdict_on_trajectories_of_known_kind(fall, collapsed: bool) -> None:
    steps = range(9)
    rewards = [0.5] * 8 + [0.25]
    columns = {"step": list(steps), "reject_logp": [-2.0 - fall(step) for step in steps], "reward": rewards}
    trajectory = pl.DataFrame({**columns, "arm": "x", "multiple": 0.9, "seed": 0, "kl": 1.0, "loss": 0.0})
    (run,) = verdicts(trajectory).iter_rows(named=True)
    assert run["collapsed"] is collapsed
    assert run["harmed"]
    assert run["predicted"]


def test_report_says_where_the_threshold_was_seen(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    frame = bandit.run(bandit.ARMS[0], SIDES, updates=200).with_columns(machine=pl.lit("this one"))
    frame.write_parquet(tmp_path / "raw" / "arm.parquet")
    text = report.write(tmp_path).read_text()
    # The largest value of beta that collapsed and the next, in multiples of the bound.
    assert "| Bandit | rejects | joint | closed form | 1 | 0.80, 1.25 | 100% | 100% / 0% |" in text
    assert "| 1.25 | 1.25 | 0 of 5 |" in text
    assert all((tmp_path / name).stat().st_size > 10_000 for name in ("collapse.png", "threshold.png", "outcome.png"))
