"""The bandit experiment: what it trains, and that the committed results come from the committed settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import typer
from typer.testing import CliRunner

from benchmarks.experiments.bandits import report, run
from pmpo_offline.runtime.errors import UserError


@pytest.fixture(scope="module")
def tuned() -> dict[str, dict[str, object]]:
    return json.loads((run.RESULTS / "tuning.json").read_text())


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    return json.loads((run.RESULTS / "report.json").read_text())


@pytest.fixture
def committed(tuned, published, monkeypatch) -> dict[str, tuple[Any, pl.DataFrame]]:
    """Cells and their rows, by stack and dimension, in the order of the experiment."""
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", published["made"]["torch"])  # part of the files' names
        paths = {f"{cell.stack}-{cell.dimensions}": (cell, cell.path) for cell in run.chosen_cells(tuned, seeds=20)}
    assert {path for _, path in paths.values()} == {path.name for path in (run.RESULTS / "raw").iterdir()}
    return {name: (cell, pl.read_parquet(run.RESULTS / "raw" / path)) for name, (cell, path) in paths.items()}


def test_the_committed_results_are_those_of_the_committed_settings(committed):
    raw = pl.concat([rows for _, rows in committed.values()])
    assert raw.group_by("function", "dimensions", "arm").agg(pl.col("seed").n_unique())["seed"].to_list() == [20] * 63
    assert not raw["regret_of_samples"].is_nan().any()


@pytest.mark.parametrize("name", ["pmpo-10", "mpo-10", "dpo-1-10", "dpo-2-10"])
def test_training_again_begins_as_the_committed_runs_did(committed, monkeypatch, name: str):
    """The first 100 steps of every run, from the experiment's own functions."""
    monkeypatch.setattr(run, "STEPS", 100)
    monkeypatch.setattr(run, "RECORDS", 2)
    cell, rows = committed[name]
    again, before = run.train(cell), rows.filter(pl.col("step") <= 100)
    assert again.schema == before.schema
    values = ["regret_of_mean", "regret_of_samples", "deviation"]
    assert again.drop(values).equals(before.drop(values))
    np.testing.assert_allclose(again[values].to_numpy(), before[values].to_numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["pmpo-10", "mpo-10", "dpo-1-10", "dpo-2-10"])
def test_every_arm_but_the_control_learns_in_the_first_tenth(committed, name: str):
    _, rows = committed[name]
    smooth = rows.filter(pl.col("function") != "schwefel", pl.col("step").is_in([0, 300]))
    for (arm,), runs in smooth.group_by("arm"):
        start, end = (runs.filter(pl.col("step") == step)["regret_of_samples"].median() for step in (0, 300))
        assert (end < 0.5 * start) == (arm != run.CONTROL), arm


def test_the_report_is_that_of_the_committed_runs(committed, tuned, published):
    raw = pl.concat([rows for _, rows in committed.values()])
    found = report.Report(raw, tuned, published["bounds"], [*(arm.name for arm in run.ARMS), run.CONTROL])
    rows = report.summary(raw, found.arms)
    assert len(rows) == len(published["rows"]) == 63
    for row, expected in zip(rows, published["rows"], strict=True):
        assert row == {
            key: value if isinstance(value, str) else pytest.approx(value, rel=1e-5) for key, value in expected.items()
        }
    page = found.markdown(published["rows"], published["made"])
    findings = (run.RESULTS / "findings.md").read_text().rstrip()
    assert (run.RESULTS / "report.md").read_text() == f"{findings}\n\n{page}"


def test_every_arm_was_tuned_over_a_grid_of_the_same_size(tuned):
    assert {len(arm["grid"]) for arm in tuned.values()} == {15}
    for arm in run.ARMS:
        grid = tuned[arm.name]["grid"]
        assert {row["strength"] for row in grid} == set(arm.grid)
        assert tuned[arm.name]["strength"] == min(grid, key=lambda row: row["score"])["strength"]
    assert not set(run.TUNING_SEEDS) & set(range(20))


def test_the_control_differs_from_its_arm_in_the_labels_alone(tuned, monkeypatch):
    monkeypatch.setattr(run, "STEPS", 40)
    monkeypatch.setattr(run, "RECORDS", 4)
    (cell,) = [c for c in run.chosen_cells(tuned, seeds=2) if c.stack == "pmpo" and c.dimensions == 2]
    assert len(cell.runs) == 4 * 3 * 2
    raw = run.train(cell)
    assert raw["step"].unique().sort().to_list() == [0, 10, 20, 30, 40]
    assert len(raw) == 5 * len(cell.runs)

    def column(arm: str, step: int) -> list[float]:
        rows = raw.filter((pl.col("arm") == arm) & (pl.col("step") == step)).sort("function", "seed")
        return rows["regret_of_samples"].to_list()

    assert column(run.CONTROL, 0) == column(run.CONTROLLED, 0)
    assert column(run.CONTROL, 40) != column(run.CONTROLLED, 40)
    first = raw.filter(pl.col("step") == 0).group_by("function", "seed").agg(pl.col("regret_of_mean").n_unique())
    assert set(first["regret_of_mean"]) == {1}, "every arm begins where the others begin"


def test_without_a_tuning_there_is_nothing_to_run(monkeypatch, tmp_path: Path):
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    with pytest.raises(UserError, match=r"tuning\.json is missing: run with --tune first"):
        run.main(output=tmp_path)


@pytest.mark.parametrize("option", ["--seeds", "--workers"])
def test_there_is_no_run_of_nothing(option: str):
    app = typer.Typer(rich_markup_mode=None)
    app.command()(run.main)
    ended = CliRunner().invoke(app, [option, "0"])
    assert ended.exit_code == 2
    assert option in ended.output
