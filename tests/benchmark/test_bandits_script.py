"""The script behind benchmarks/results/bandits: what it trains, and that the committed results are its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import bandits
    finally:
        sys.path.remove(str(BENCHMARKS))
    return bandits


@pytest.fixture(scope="module")
def tuned(script: ModuleType) -> dict[str, dict[str, object]]:
    return json.loads((script.RESULTS / "tuning.json").read_text())


def test_the_committed_results_are_those_of_the_committed_settings(script, tuned, monkeypatch):
    made = json.loads((script.RESULTS / "report.json").read_text())["made"]
    monkeypatch.setattr(torch, "__version__", made["torch"])
    cells = script.chosen_cells(tuned, seeds=20)
    assert sorted(cell.path for cell in cells) == sorted(path.name for path in (script.RESULTS / "raw").iterdir())
    raw = pl.concat([pl.read_parquet(script.RESULTS / "raw" / cell.path) for cell in cells])
    assert raw.group_by("function", "dimensions", "arm").agg(pl.col("seed").n_unique())["seed"].to_list() == [20] * 63
    assert not raw["regret_of_samples"].is_nan().any()


def test_every_arm_was_tuned_over_a_grid_of_the_same_size(script, tuned):
    assert {len(arm["grid"]) for arm in tuned.values()} == {15}
    for arm in script.ARMS:
        grid = tuned[arm.name]["grid"]
        assert {row["strength"] for row in grid} == set(arm.grid)
        assert tuned[arm.name]["strength"] == min(grid, key=lambda row: row["score"])["strength"]
    assert not set(script.TUNING_SEEDS) & set(range(20))


def test_the_control_differs_from_its_arm_in_the_labels_alone(script, tuned, monkeypatch):
    monkeypatch.setattr(script, "STEPS", 40)
    monkeypatch.setattr(script, "RECORDS", 4)
    (cell,) = [c for c in script.chosen_cells(tuned, seeds=2) if c.stack == "pmpo" and c.dimensions == 2]
    assert len(cell.runs) == 4 * 3 * 2
    raw = script.train(cell)
    assert raw["step"].unique().sort().to_list() == [0, 10, 20, 30, 40]
    assert len(raw) == 5 * len(cell.runs)

    def column(arm: str, step: int) -> list[float]:
        rows = raw.filter((pl.col("arm") == arm) & (pl.col("step") == step)).sort("function", "seed")
        return rows["regret_of_samples"].to_list()

    assert column(script.CONTROL, 0) == column(script.CONTROLLED, 0)
    assert column(script.CONTROL, 40) != column(script.CONTROLLED, 40)
    first = raw.filter(pl.col("step") == 0).group_by("function", "seed").agg(pl.col("regret_of_mean").n_unique())
    assert set(first["regret_of_mean"]) == {1}, "every arm begins where the others begin"
