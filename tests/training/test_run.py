"""A run's directory: recognised by the run's identity, finished only with what was learned, whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from pmpo_offline import on_progress
from pmpo_offline.data import Dataset
from pmpo_offline.evaluation.runs import evaluate_run
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.training import config
from pmpo_offline.training.run import Run, read_record, train_run

QUICK: dict[str, Any] = {"updates": 30, "batch": 32, "hidden": [16], "components": 2, "checkpoint_every": 10}


@pytest.fixture
def run(stacking: Dataset) -> Run:
    return Run(stacking, "pmpo", {"beta": 2.0, **QUICK})


def test_a_finished_run_is_not_repeated(run: Run, tmp_path: Path) -> None:
    stages: list[str] = []
    with on_progress(lambda stage, *_: stages.append(stage)):
        record = train_run(run, tmp_path / "run")
        assert stages
        stages.clear()
        assert train_run(run, tmp_path / "run") == record == read_record(tmp_path / "run")
    assert not stages
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"metrics.csv", "policy.safetensors", "run.json"}


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"shuffle_labels": True},
        {"settings": {"beta": 2.5, **QUICK}},
        {"settings": {"beta": 2.0, **QUICK, "batch": 31}},
        {"steps": 31},
        {"algorithm": "accept-bc"},
        {"dataset": None},
    ],
    ids=str,
)
def test_another_run_is_not_taken_for_this_one(run: Run, tmp_path: Path, change: dict[str, Any]) -> None:
    train_run(run, tmp_path / "run")
    if "dataset" in change:
        change = {"dataset": run.dataset.relabelled(noise=0.1)}
    if change.get("algorithm"):
        change["settings"] = QUICK
    with pytest.raises(UserError, match="holds another run: name another --output, or delete it"):
        train_run(replace(run, **change), tmp_path / "run")


def test_a_run_of_other_code_is_another_run(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_run(run, tmp_path / "run")
    monkeypatch.setattr(config, "REVISION", config.REVISION + 1)
    with pytest.raises(UserError, match="holds another run"):
        train_run(run, tmp_path / "run")


@pytest.mark.parametrize("damage", ["a flipped bit", "a cut file", "no file"])
def test_a_run_is_finished_only_with_what_it_learned(run: Run, tmp_path: Path, damage: str) -> None:
    train_run(run, tmp_path / "run")
    policy = tmp_path / "run" / "policy.safetensors"
    content = bytearray(policy.read_bytes())
    content[-1] ^= 1
    policy.write_bytes(content if damage == "a flipped bit" else content[:-10])
    if damage == "no file":
        policy.unlink()
    with pytest.raises(PmpoOfflineError, match=r"policy\.safetensors is not what was trained: remove the whole"):
        train_run(run, tmp_path / "run")
    with pytest.raises(PmpoOfflineError, match=r"policy\.safetensors is not what was trained: remove the whole"):
        evaluate_run(tmp_path / "run")


def test_two_processes_do_not_train_in_one_directory(run: Run, tmp_path: Path) -> None:
    refused: list[BaseException] = []

    def other() -> None:
        with pytest.raises(UserError, match="holds another run: name another --output") as caught:
            train_run(replace(run, seed=1), tmp_path / "run")
        refused.append(caught.value)

    second = Thread(target=other)

    def start(stage: str, done: int, total: int) -> None:
        if not second.ident:
            second.start()
            second.join(1)  # time enough to train, if it did not wait

    with on_progress(start):
        record = train_run(run, tmp_path / "run")
    second.join()
    assert len(refused) == 1
    assert train_run(run, tmp_path / "run") == record
    assert not list(tmp_path.glob(".run*"))


def test_a_stopped_run_is_resumed_by_itself_alone(run: Run, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if done >= 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), on_progress(stop):
        train_run(run, tmp_path / "run")
    with pytest.raises(UserError, match="holds another run that was stopped: name another --output, or delete it"):
        train_run(replace(run, seed=1), tmp_path / "run")
    assert train_run(run, tmp_path / "run")["metrics"] == train_run(run, tmp_path / "whole")["metrics"]
