"""The script behind benchmarks/results/bandits: what it trains, and that the committed results are its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import typer
from typer.testing import CliRunner

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


@pytest.fixture(scope="module")
def report(script: ModuleType) -> dict[str, Any]:
    return json.loads((script.RESULTS / "report.json").read_text())


@pytest.fixture
def committed(script: ModuleType, tuned, report, monkeypatch) -> dict[str, tuple[Any, pl.DataFrame]]:
    """Cells and their rows, by stack and dimension, in the script's order."""
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", report["made"]["torch"])  # the names of the files depend on it
        paths = {f"{cell.stack}-{cell.dimensions}": (cell, cell.path) for cell in script.chosen_cells(tuned, seeds=20)}
    assert {path for _, path in paths.values()} == {path.name for path in (script.RESULTS / "raw").iterdir()}
    return {name: (cell, pl.read_parquet(script.RESULTS / "raw" / path)) for name, (cell, path) in paths.items()}


def test_the_committed_results_are_those_of_the_committed_settings(committed):
    raw = pl.concat([rows for _, rows in committed.values()])
    assert raw.group_by("function", "dimensions", "arm").agg(pl.col("seed").n_unique())["seed"].to_list() == [20] * 63
    assert not raw["regret_of_samples"].is_nan().any()


@pytest.mark.parametrize("name", ["pmpo-10", "mpo-10", "dpo-1-10", "dpo-2-10"])
def test_training_again_begins_as_the_committed_runs_did(script, committed, monkeypatch, name: str):
    """The first tenth of every run, from the script's own functions; every arm but the control learns in it."""
    monkeypatch.setattr(script, "STEPS", 300)
    monkeypatch.setattr(script, "RECORDS", 6)
    cell, rows = committed[name]
    again, before = script.train(cell), rows.filter(pl.col("step") <= 300)
    assert again.schema == before.schema
    values = ["regret_of_mean", "regret_of_samples", "deviation"]
    assert again.drop(values).equals(before.drop(values))
    np.testing.assert_allclose(again[values].to_numpy(), before[values].to_numpy(), rtol=1e-5, atol=1e-6)

    smooth = again.filter(pl.col("function") != "schwefel", pl.col("step").is_in([0, 300]))
    for (arm,), runs in smooth.group_by("arm"):
        start, end = (runs.filter(pl.col("step") == step)["regret_of_samples"].median() for step in (0, 300))
        assert (end < 0.5 * start) == (arm != script.CONTROL), arm


def test_the_report_is_that_of_the_committed_runs(script, committed, tuned, report):
    module = script.bandits_report
    raw = pl.concat([rows for _, rows in committed.values()])
    arms = [*(arm.name for arm in script.ARMS), script.CONTROL]
    rows = module.summary(raw, arms)
    assert len(rows) == len(report["rows"]) == 63
    for found, told in zip(rows, report["rows"], strict=True):
        assert found == {
            key: value if isinstance(value, str) else pytest.approx(value, rel=1e-5) for key, value in told.items()
        }
    page = module.markdown(report["rows"], tuned, report["bounds"], report["made"], arms, raw)
    findings = (script.RESULTS / "findings.md").read_text().rstrip()
    assert (script.RESULTS / "report.md").read_text() == f"{findings}\n\n{page}"


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


def test_a_missing_tuning_is_one_line_and_exit_code_2(tmp_path):
    for path in BENCHMARKS.glob("bandits*.py"):
        shutil.copy(path, tmp_path)
    ended = subprocess.run([sys.executable, tmp_path / "bandits.py"], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert ended.stdout == ""
    [line] = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert line.endswith("tuning.json is missing: run with --tune first")


@pytest.mark.parametrize("option", ["--seeds", "--workers"])
def test_there_is_no_run_of_nothing(script, option: str):
    app = typer.Typer(rich_markup_mode=None)
    app.command()(script.main)
    ended = CliRunner().invoke(app, [option, "0"])
    assert ended.exit_code == 2
    assert option in ended.output
