"""The experiments on the regimes of β and on the suggestion, in small; their pages are of the committed runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from benchmarks.experiments import labellings
from benchmarks.experiments.regimes import run as regimes
from benchmarks.experiments.suggestion import run as suggestion
from pmpo_offline.build import build_dataset
from pmpo_offline.data import columns
from pmpo_offline.training import Setup


@pytest.mark.parametrize("panel", list(regimes.PANELS))
def test_trained_tables_end_where_the_closed_form_says(panel: str) -> None:
    labelled, rows = regimes.PANELS[panel]
    bound, collapse = regimes.thresholds(labelled, rows)
    assert 0 < collapse < bound
    beta = torch.tensor([0.8 * bound, 1.5 * bound], dtype=torch.float64)
    ends = regimes.train(beta, labelled, rows, updates=400 if labelled == 1 else 1200)["accepted"]
    limits = regimes.predicted(beta, labelled, rows)["accepted"]
    assert ends == pytest.approx(limits, abs=0.06)
    assert limits[0] == pytest.approx(1)
    assert limits[1] < 0.8


@pytest.mark.parametrize("experiment", [regimes, suggestion])
def test_the_page_is_made_of_the_committed_runs(experiment, tmp_path: Path) -> None:
    for name in ("raw.parquet", "findings.md"):
        shutil.copy(experiment.OUT / name, tmp_path)
    experiment.report(tmp_path)

    def table(folder: Path) -> list[str]:
        return [line for line in (folder / "README.md").read_text().splitlines() if line.startswith("|")]

    assert table(tmp_path) == table(experiment.OUT) != []


def test_conditions_have_the_metadata_of_such_datasets(tmp_path: Path) -> None:
    whole = build_dataset("bandit/sphere-v0", episodes=400, home=tmp_path, workers=1)
    real = whole.relabelled(noise=0.1, imbalance=0.2)
    label = torch.tensor(columns.labels(real.table)).float()
    dropped = real.metadata.imbalance.dropped_accepted, real.metadata.imbalance.dropped_rejected
    made = suggestion.described(whole, labellings.Labelled(label), 0.1, dropped)
    for name in ("counts", "reject_mass", "labelled_reject_mass", "reject_share", "noise"):
        assert getattr(made.metadata, name) == pytest.approx(getattr(real.metadata, name))
    arms = dict(suggestion.arms(made))
    assert arms[suggestion.FIXED]["beta"] == pytest.approx(
        Setup(suggestion.PMPO, {"beta": "1.05x"}, real).settled().settings["beta"]
    )
    assert arms[suggestion.SUGGESTED]["alpha"] < 0.5, "only accepts lost their labels"
