"""Metrics over updates: one file a run, the same names everywhere, and the same values in other libraries."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from helpers.forked import Forked

from pmpo_offline import on_progress, train
from pmpo_offline.build import build_dataset
from pmpo_offline.data import Dataset
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.training import TensorBoard, tracking
from pmpo_offline.training.loggers import check_loggers, tracked
from pmpo_offline.training.run import Run, train_run
from pmpo_offline.training.tracking import FILE, MetricsFile, read_metrics

QUICK: dict[str, Any] = {"beta": 2.0, "updates": 60, "checkpoint_every": 10}
NAMES = {"loss", "learning_rate", "kl", "logps/chosen", "logps/rejected"}


@pytest.fixture(scope="module")
def sphere(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return build_dataset("bandit/sphere-v0", imbalance=0.1, home=tmp_path_factory.mktemp("home"))


def recorded(run: Path) -> pl.DataFrame:
    table = read_metrics(run / FILE)
    assert table is not None
    return table


def test_a_run_records_its_metrics_and_a_logger_gets_the_same(sphere: Dataset, tmp_path: Path) -> None:
    got: list[tuple[int, Mapping[str, float]]] = []
    record = train_run(
        Run(sphere, "pmpo", QUICK), tmp_path, loggers=[lambda metrics, step: got.append((step, metrics))]
    )
    table = recorded(tmp_path)
    assert table["step"].to_list() == [25, 50, 60] == [step for step, _ in got]
    assert set(table.columns) >= {"step", "run"} | NAMES
    for name in table.columns[2:]:
        assert table[name].to_list() == pytest.approx([metrics[name] for _, metrics in got], rel=1e-5)
    assert got[-1][1]["loss"] == pytest.approx(record["metrics"]["loss"])
    assert got[-1][1]["logps/chosen"] == pytest.approx(record["metrics"]["accept_logp"])


def test_a_resumed_run_has_the_metrics_of_one_that_was_not_stopped(sphere: Dataset, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if done >= 50:
            raise KeyboardInterrupt

    run = Run(sphere, "pmpo", QUICK)
    with pytest.raises(KeyboardInterrupt), on_progress(stop):
        train_run(run, tmp_path / "stopped")
    with (tmp_path / "stopped" / FILE).open("a") as file:
        file.write("59,0,1.0,half a li")  # what a kill leaves
    train_run(run, tmp_path / "stopped")
    train_run(run, tmp_path / "whole")
    for name in (FILE, "policy.safetensors", "run.json"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_lines_that_are_kept_are_not_written_anew(tmp_path: Path) -> None:
    file, values = MetricsFile(tmp_path / FILE), {"loss": [0.0, -3e-08], "kl": [math.nan, math.inf]}
    file.record(1, values)
    before = (tmp_path / FILE).read_bytes()
    file.record(2, values)
    MetricsFile(tmp_path / FILE).begin(1)
    assert (tmp_path / FILE).read_bytes() == before


def test_stacked_runs_are_told_apart_by_what_they_differ_in(sphere: Dataset) -> None:
    got: list[Mapping[str, float]] = []
    settings = [{"beta": 1.0}, {"beta": 2.0}]
    overrides = {"updates": 5}
    stack = train(
        sphere,
        "pmpo",
        seeds=[3, 4],
        settings=settings,
        overrides=overrides,
        loggers=[lambda metrics, step: got.append(metrics)],
    )
    (metrics,) = got
    names = [f"loss/seed {seed}, beta {beta}" for beta in (1, 2) for seed in (3, 4)]
    assert [metrics[name] for name in names] == pytest.approx(stack.metrics["loss"].tolist())


def test_what_is_no_logger_is_refused_before_anything_is_trained(sphere: Dataset) -> None:
    with pytest.raises(UserError, match=r"loggers: expected objects with log\(metrics, step\), or functions, not 5"):
        train(sphere, "pmpo", loggers=[5])  # type: ignore[list-item]


def test_a_long_training_records_few_lines() -> None:
    with tracking.observed(MetricsFile(Path("unused"))):
        for total in (30, 2_500, 50_000, 49_990):
            due = [
                done
                for done in range(25, total + 1)
                if (done % 25 == 0 or done == total) and tracking.is_due(done, total, 25)
            ]
            assert due[-1] == total
            assert len(due) <= tracking.POINTS + 1
    assert not tracking.is_due(100, 100, 25)  # nobody listens: nothing is copied from the device


def test_the_clone_is_recorded_beside_it_and_a_learner_that_starts_there_records_its_own(
    stacking: Dataset, tmp_path: Path
) -> None:
    small = {"updates": 30, "batch": 32, "hidden": [16], "components": 2, "checkpoint_every": 10}
    train_run(Run(stacking, "dpo", small), tmp_path / "dpo")
    (clone,) = (tmp_path / "dpo" / "references").glob("clone-*.csv")
    assert "logp" in pl.read_csv(clone).columns
    assert {"loss", "rewards/accuracies"} <= {*recorded(tmp_path / "dpo").columns}
    train_run(Run(stacking, "bc", small), tmp_path / "bc")
    assert recorded(tmp_path / "bc").columns[2:] == pl.read_csv(clone).columns[2:]


def test_the_mean_of_an_absent_class_is_no_number(sphere: Dataset, tmp_path: Path) -> None:
    rejects = sphere.relabelled(imbalance=0.0)
    train_run(Run(rejects, "pmpo", {**QUICK, "alpha": 0.0}), tmp_path)
    table = recorded(tmp_path)
    assert table["logps/chosen"].is_nan().all()
    assert table["logps/rejected"].is_finite().all()


def test_numbers_survive_the_file(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / FILE)
    file.begin(0)
    file.record(25, {"loss": [math.inf, math.nan], "kl": [1e-30, -2.0]})
    file.record(50, {"loss": [0.1, 2e9]})
    rows = recorded(tmp_path).rows()
    assert rows[0] == (25, 0, math.inf, 1e-30)
    assert math.isnan(rows[1][2])
    assert rows[2:] == [(50, 0, 0.1, None), (50, 1, 2e9, None)]
    file.begin(25)
    assert recorded(tmp_path)["step"].to_list() == [25, 25]
    file.begin(0)
    assert read_metrics(tmp_path / FILE) is None


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(PmpoOfflineError, match=r"cannot write .*metrics\.csv: Is a directory"):
        MetricsFile(tmp_path / FILE).record(1, {"loss": [0.0]})


@pytest.mark.filterwarnings("ignore")
def test_other_libraries_hold_what_the_file_holds(
    sphere: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    place, names = tmp_path / "run", ["tensorboard", "wandb", "trackio"]
    with tracked(names, place, {"algorithm": "pmpo"}) as loggers:
        train_run(Run(sphere, "pmpo", QUICK), place, loggers=loggers)
    table = recorded(place)
    losses = pytest.approx(table["loss"].to_list(), rel=1e-5)

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(place / "tensorboard")).Reload()
    assert {*events.Tags()["scalars"]} == {*table.columns[2:]}
    assert [event.value for event in events.Scalars("loss")] == losses
    assert [event.step for event in events.Scalars("loss")] == [25, 50, 60]

    (offline,) = (place / "wandb").glob("offline-run-*/*.wandb")
    assert wandb_history(offline) == losses

    (database,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(database) as connection:
        logged = connection.execute("SELECT step, metrics FROM metrics ORDER BY step").fetchall()
    assert [step for step, _ in logged] == [25, 50, 60]
    assert [json.loads(metrics)["loss"] for _, metrics in logged] == losses


LOGGED_TWICE = """
import sys
from pathlib import Path
from pmpo_offline.training.loggers import LOGGERS

for name in sys.argv[2:]:
    for part, steps in enumerate(([10, 20, 30], [20, 30, 40])):  # as after a kill: on from the checkpoint of step 10
        logger = LOGGERS[name](Path(sys.argv[1]), {"algorithm": "pmpo"})
        for step in steps:
            logger.log({"loss": step + part / 2}, step)
        logger.close()
"""


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """The empty home directory of a user."""
    path = tmp_path / "user"
    path.mkdir()
    return path


def test_a_run_that_goes_on_repeats_no_step(
    tmp_path: Path, user: Path, monkeypatch: pytest.MonkeyPatch, forkserver: BaseContext
) -> None:
    monkeypatch.setenv("HOME", str(user))
    process = Forked(forkserver, LOGGED_TWICE, tmp_path / "run", "tensorboard", cwd=tmp_path)
    assert (process.communicate(), process.returncode) == (("", ""), 0)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "user"}
    assert list(user.iterdir()) == []

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in events] == [(10, 10.0), (20, 20.5), (30, 30.5), (40, 40.5)]


def test_libraries_that_look_for_a_home_write_into_the_run_s_own_folder(tmp_path: Path, user: Path) -> None:
    """They look when they are imported, and so in a process of their own."""
    place = tmp_path / "run"
    mine = {
        name: value for name, value in os.environ.items() if not name.startswith(("XDG", "HF_", "WANDB", "TRACKIO"))
    }
    command = [sys.executable, "-c", LOGGED_TWICE, str(place), "wandb", "trackio"]
    subprocess.run(command, env={**mine, "HOME": str(user)}, check=True, capture_output=True, cwd=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "user"}
    assert list(user.iterdir()) == []
    assert {path.name for path in place.iterdir()} == {"wandb", "trackio"}
    assert len({path.stem for path in place.glob("wandb/offline-run-*/*.wandb")}) == 1


def wandb_history(path: Path) -> list[float]:
    """Return the losses in a file that `wandb sync` would upload: a log of LevelDB with its own protocol buffers.

    Seven bytes of header; then blocks of 32 KiB of chunks: a checksum (4), a length (2), a kind (1: 1 whole, 2 first,
    3 middle, 4 last), the bytes. https://github.com/google/leveldb/blob/main/doc/log_format.md
    """
    from wandb.proto import wandb_internal_pb2

    content, at, whole, losses = path.read_bytes(), 7, b"", []
    while at + 7 <= len(content):
        if (left := 32_768 - at % 32_768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole = b""
            losses += [json.loads(item.value_json) for item in record.history.item if "loss" in item.nested_key]
    return losses


def test_a_finished_run_opens_no_logger(sphere: Dataset, tmp_path: Path) -> None:
    train_run(Run(sphere, "pmpo", QUICK), tmp_path)
    with tracked(["tensorboard"], tmp_path, {}) as loggers:
        train_run(Run(sphere, "pmpo", QUICK), tmp_path, loggers=loggers)
    assert not (tmp_path / "tensorboard").exists()


def test_a_library_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown logger 'wandbb': did you mean wandb"):
        check_loggers(["wandbb"])
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for missing in (lambda: check_loggers(["tensorboard"]), lambda: TensorBoard(tmp_path)):
        with pytest.raises(UserError, match=r"tensorboard cannot be imported .*pip install 'pmpo-offline\[tracking\]'"):
            missing()


def test_a_logger_changes_nothing_for_others(sphere: Dataset, tmp_path: Path) -> None:
    got: list[tuple[int, int]] = []

    def train_another(metrics: dict[str, float], step: int) -> None:
        metrics.clear()
        train(sphere, "bc", updates=5)

    run = Run(sphere, "pmpo", QUICK)
    train_run(run, tmp_path / "one", loggers=[train_another, lambda metrics, step: got.append((step, len(metrics)))])
    train_run(run, tmp_path / "two")
    assert (tmp_path / "one" / FILE).read_text() == (tmp_path / "two" / FILE).read_text()
    assert got == [(step, len(recorded(tmp_path / "two").columns) - 2) for step in (25, 50, 60)]


@pytest.mark.parametrize("failing", ["log", "close"])
def test_a_library_that_fails_is_one_line_and_the_run_is_kept(
    sphere: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no\nconnection")

    monkeypatch.setattr(TensorBoard, failing, fail)
    with (
        pytest.raises(PmpoOfflineError, match=r"tensorboard failed: no connection; .* without --track tensorboard"),
        tracked(["tensorboard"], tmp_path, {}) as loggers,
    ):
        train_run(Run(sphere, "pmpo", QUICK), tmp_path, loggers=loggers)
    train_run(Run(sphere, "pmpo", QUICK), tmp_path)
    assert recorded(tmp_path)["step"].to_list() == [25, 50, 60]


def test_a_pipe_is_no_table_of_metrics(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / FILE)
    assert read_metrics(tmp_path / FILE) is None
    MetricsFile(tmp_path / FILE).begin(1)
    assert not (tmp_path / FILE).exists()
