"""A run on data that name a registered environment of Gymnasium is scored there."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.aligned import experience
from helpers.foreign import minari_set

from pmpo_offline import import_dataset
from pmpo_offline.evaluation.options import EvaluationOptions
from pmpo_offline.evaluation.runs import evaluate_run
from pmpo_offline.training.run import Run, train_run


def test_a_run_is_scored_in_the_environment_that_its_data_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    source = minari_set(experience([4, 3]), env="Pendulum-v1", act=lambda values: values[:, :1])
    dataset = import_dataset(source, home=tmp_path / "home")
    train_run(Run(dataset, "bc", {"hidden": [4], "components": 1}, steps=1), tmp_path / "run")
    with pytest.warns(UserWarning, match="scored in Pendulum-v1 as Gymnasium registers it"):
        found = evaluate_run(tmp_path / "run", EvaluationOptions(episodes=2, workers=1), tmp_path / "home")
    assert (found["episodes"], found["length"], found["normalized"]) == (2, 200, None)
