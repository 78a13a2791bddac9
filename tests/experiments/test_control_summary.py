"""The tables over all datasets of the suite `control`, from raw scores with known means."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from benchmarks.experiments.control import report
from pmpo_offline.benchmark.results import DRIFT, SCHEMA

RECORD, MEDIUM = "dm_control/x-medium-replay-v0", "dm_control/x-medium-v0"


def raw(
    algo: str, dataset: str, returns: list[float], beta: float | None = None, shuffled: bool = False
) -> pl.DataFrame:
    """Return two runs of one episode each on references 100 and 300."""
    constants = {"algo": algo, "dataset": dataset, "beta": beta, "beta_min": beta and 0.5, "shuffled": shuffled}
    constants |= dict.fromkeys(("settings", "training", "versions"), "{}")
    rows = [
        {**constants, "seed": seed, "return": value, "reference_min": 100.0, "reference_max": 300.0}
        for seed, value in enumerate(returns)
    ]
    return pl.DataFrame([dict.fromkeys(SCHEMA.names()) | row for row in rows], schema=SCHEMA)


def test_the_tables(tmp_path: Path) -> None:
    frames = [
        raw("bc", RECORD, [100, 120]),
        raw("bc", MEDIUM, [180, 180]),
        raw("bc-accepted", RECORD, [140, 140]),
        raw("bc-accepted", MEDIUM, [200, 200]),
        raw("pmpo", RECORD, [160, 130], 0.25),
        raw("pmpo", MEDIUM, [180, 220], 0.25),
        raw("pmpo", RECORD, [100, 100], 0.25, shuffled=True),
        raw("top-bc", RECORD, [300, 300]),
        raw("top-bc", MEDIUM, [300, 300]),
    ]
    (tmp_path / "raw").mkdir()
    for number, frame in enumerate(frames):
        # Files of before there were language models lack some columns.
        (frame.drop(DRIFT) if number % 2 else frame).write_parquet(tmp_path / "raw" / f"{number}.parquet")
    (tmp_path / "findings.md").write_text("# Found\n")
    report.main(results=tmp_path)
    lines = (tmp_path / "README.md").read_text().splitlines()
    assert lines[0] == "# Found"
    (clone,) = [line for line in lines if line.startswith("| bc |") and "–" in line]
    assert clone.startswith("| bc | 25.0 |")  # the middle two of 0, 10, 40, 40
    ours, gains = [line for line in lines if line.startswith("| pmpo 0.5x |") and "–" in line]
    assert gains == "| pmpo 0.5x | +2.5 | -inf – +inf | +0.0 | -inf – +inf |"  # one dataset a group bounds nothing
    assert ours.endswith("| 1.00 | 0.50 | 0.75 | 0.50 |")  # a tie counts one half
    assert not [line for line in lines if line.startswith("| pmpo 0.5x, shuffled |")]  # of one dataset only
    assert "| | bc | bc-accepted | pmpo 0.5x | pmpo 0.5x, shuffled | top-bc* |" in lines
    assert "| dm_control/x-medium-replay | 5 | 20 | **22** | 0 | 100 |" in lines
    assert "| dm_control/x-medium | 40 | **50** | **50** |  | 100 |" in lines
