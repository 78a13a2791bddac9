"""Runs of another library as rows of a table: a row is complete, and has nothing of the training of ours."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from helpers.raw_scores import raw_scores

from baselines.peers.rows import add_row
from pmpo_offline.benchmark.leaderboard import Leaderboard, problems
from pmpo_offline.benchmark.results import Results
from pmpo_offline.benchmark.table import table

DATASET = "bandit/sphere-v0"


def test_a_row_stands_beside_ours_on_the_same_data(tmp_path: Path) -> None:
    """20 of 10 to 60 is a score of 20; nothing of how our row was trained is left in theirs."""
    results = Results(tmp_path)
    ours = raw_scores("ours", [[30.0, 30.0]] * 5, algo="bc", dataset=DATASET, reference=True, filtered=True)
    results.write("ours", ours)
    results.write("control", raw_scores("control", [[10.0, 10.0]] * 5, dataset=DATASET, shuffled=True))
    for _ in range(2):  # written again, it is the same row
        runs = [pl.DataFrame({"episode": [0, 1], "layout": ["a", "b"], "return": [20.0, 20.0]})] * 5
        runs = [run.with_columns(success=False, length=3) for run in runs]
        add_row(results, "bc (theirs)", ours, runs, {"library": "theirs 1.0", "updates": 7})
    row = next(each for each in table(results.read()) if each["algo"] == "bc (theirs)")
    assert (row["iqm"], row["seeds"], row["episodes"], row["compared"]) == (20.0, 5, 2, "bc")
    assert row["training"] == {"library": "theirs 1.0", "updates": 7}
    assert (row["settings"], row["beta"], row["beta_min"], row["filtered"], row["reference"]) == (
        {},
        None,
        None,
        False,
        False,
    )
    assert len(results.read()["key"].unique()) == 3
    found = [*problems(results.read(), Leaderboard(tmp_path / "board"), tmp_path)]
    assert len(found) == 1, found
    assert f"{DATASET} is not here to compare its hash with" in found[0]
