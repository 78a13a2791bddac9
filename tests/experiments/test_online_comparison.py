"""The committed comparison of online learners, in small: interrupted, it ends as it would have; its table is right."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from pmpo_offline.online.online_settings import ControlSettings
from pmpo_offline.runtime.errors import UserError

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
TASK = "dm_control/cartpole-swingup"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script with runs of few steps."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    module = importlib.import_module("online_control")
    small = ControlSettings(environments=4, warmup=6, length=4, stretches=2, critic_hidden=(8, 8), ticks=200)
    monkeypatch.setattr("pmpo_offline.online.online_control.ControlSettings", lambda: small)
    monkeypatch.setattr(module, "FRAMES", {TASK: 2_400})
    for name, number in (("EVALUATIONS", 2), ("EPISODES", 2)):
        monkeypatch.setattr(module, name, number)
    yield module
    for name in ("online_control", "online_control_report"):
        sys.modules.pop(name, None)


class Killed(BaseException):
    pass


def test_a_cell_that_was_killed_goes_on_where_it_was(script: ModuleType, tmp_path: Path) -> None:
    cell = script.Cell(TASK, "pmpo", (0,))
    whole = script.train(cell, tmp_path / "whole", lambda *_: None)
    assert list(whole.group_by("arm", maintain_order=True).len()["len"]) == [6] * 4  # the first before any step
    assert whole["arm"].unique(maintain_order=True).to_list() == list(script.ARMS)[:4]
    algorithm = cell.algorithm
    assert algorithm.settings["alpha"].flatten().tolist() == [0.5, 1.0, 0.0, 0.5]
    assert algorithm.shuffled.tolist() == [False, False, False, True]

    def kill(done: int, total: int) -> None:
        if done > total / 2:
            raise Killed

    with pytest.raises(Killed):
        script.train(cell, tmp_path / "half", kill)
    resumed = script.train(cell, tmp_path / "half", lambda *_: None)
    assert_frame_equal(whole.drop("cpu"), resumed.drop("cpu"))
    assert resumed["cpu"].is_sorted()


def test_the_table_is_made_of_the_finished_cells(script: ModuleType, tmp_path: Path) -> None:
    script.main(task=["cartpole-swingup"], algo=["dpo", "ppo"], seeds=2, output=tmp_path)
    files = sorted((tmp_path / "raw").iterdir())
    before = [path.stat().st_mtime_ns for path in files]
    assert [path.name.rpartition("-")[0] for path in files] == ["cartpole-swingup-dpo", "cartpole-swingup-ppo"]
    script.main(task=["cartpole-swingup"], algo=["dpo"], seeds=2, output=tmp_path)
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


def test_names_that_are_none_are_told(script: ModuleType) -> None:
    with pytest.raises(UserError, match="unknown algorithm 'dpq': did you mean dpo"):
        script.cells([TASK], ["dpq"], 1)
    with pytest.raises(UserError, match="unknown control task 'cheetah'"):
        script.cells(["cheetah"], ["dpo"], 1)
    with pytest.raises(UserError, match="unknown task of this benchmark 'dm_control/walker-walk'"):
        script.cells(["walker-walk"], ["dpo"], 1)
