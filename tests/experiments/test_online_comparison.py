"""The committed comparison of online learners, in small: interrupted, it ends as it would have; its table is right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mujoco
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

from benchmarks.experiments.online import run
from pmpo_offline import on_progress
from pmpo_offline.online.online_control import ControlSettings
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.tasks.control import rules

TASK = "dm_control/cartpole-swingup"


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of few steps."""
    small = ControlSettings(environments=4, warmup=6, length=4, stretches=2, critic_hidden=(8, 8), ticks=200)
    monkeypatch.setattr("pmpo_offline.online.online_control.ControlSettings", lambda: small)
    monkeypatch.setattr("pmpo_offline.online.online_control.CHUNK", 20)
    monkeypatch.setattr(run, "FRAMES", {TASK: 480})
    monkeypatch.setattr(run, "rules", lambda name: replace(rules(name), horizon=20))
    for name, number in (("EVALUATIONS", 2), ("EPISODES", 2)):
        monkeypatch.setattr(run, name, number)


class Killed(BaseException):
    pass


def test_a_cell_that_was_killed_goes_on_where_it_was(short: None, tmp_path: Path) -> None:
    cell = run.Cell(TASK, "pmpo", (0,))
    whole = run.train(cell, tmp_path / "whole")
    assert list(whole.group_by("arm", maintain_order=True).len()["len"]) == [6] * 4  # the first before any step
    assert whole["arm"].unique(maintain_order=True).to_list() == list(run.ARMS)[:4]
    algorithm = cell.algorithm
    assert algorithm.settings["alpha"].flatten().tolist() == [0.5, 1.0, 0.0, 0.5]
    assert algorithm.shuffled.tolist() == [False, False, False, True]

    def kill(stage: str, done: int, total: int) -> None:
        if done > total / 2:
            raise Killed

    with pytest.raises(Killed), on_progress(kill):
        run.train(cell, tmp_path / "half")
    resumed = run.train(cell, tmp_path / "half")
    assert_frame_equal(whole.drop("cpu"), resumed.drop("cpu"))
    assert resumed["cpu"].is_sorted()


def test_the_table_is_made_of_the_finished_cells(short: None, tmp_path: Path) -> None:
    run.main(task=["cartpole-swingup"], algo=["dpo", "ppo"], seeds=2, output=tmp_path)
    files = sorted((tmp_path / "raw").iterdir())
    before = [path.stat().st_mtime_ns for path in files]
    assert [path.name.rpartition("-")[0] for path in files] == ["cartpole-swingup-dpo", "cartpole-swingup-ppo"]
    run.main(task=["cartpole-swingup"], algo=["dpo"], seeds=2, output=tmp_path)
    assert [path.stat().st_mtime_ns for path in files] == before

    raw = pl.concat([pl.read_parquet(path) for path in files])
    of_dpo = raw.filter((pl.col("arm") == "DPO") & (pl.col("frames") == pl.col("frames").max().over("arm")))
    scores = pl.read_csv(tmp_path / "scores.csv")
    assert scores.filter(pl.col("arm") == "DPO")["return"].to_list()[-1] == pytest.approx(
        of_dpo.filter(pl.col("seed") == 1)["return"].mean(), abs=0.06
    )
    text = (tmp_path / "README.md").read_text()
    assert "| DPO | " in text
    assert "| PPO | " in text
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_names_that_are_none_are_told() -> None:
    with pytest.raises(UserError, match="unknown algorithm 'dpq': did you mean dpo"):
        run.cells([TASK], ["dpq"], 1)
    with pytest.raises(UserError, match="unknown control task 'cheetah'"):
        run.cells(["cheetah"], ["dpo"], 1)
    with pytest.raises(UserError, match="unknown task of this benchmark 'dm_control/walker-walk'"):
        run.cells(["walker-walk"], ["dpo"], 1)


def test_the_committed_results_are_those_of_the_committed_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are named by all that they depend on, the versions they were made with among it."""
    monkeypatch.setattr(torch, "__version__", "2.13.0+cpu")
    monkeypatch.setattr(mujoco, "__version__", "3.17.0")
    expected = {f"{cell.name}.parquet" for cell in run.cells(list(run.FRAMES), list(run.ALGOS), 3)}
    assert {path.name for path in (run.RESULTS / "raw").iterdir()} == expected
