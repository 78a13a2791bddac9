"""Curves on the terminal: what is recorded last, whole at every width."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from pmpo_offline.cli import watch
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.progress import report
from pmpo_offline.training.tracking import MetricsFile


def recorded(path: Path, points: int = 200) -> None:
    file = MetricsFile(path)
    for step in range(points):
        loss = 100.0 / (1 + step)
        file.record(step, {"accept_share": [0.5, 0.5], "logps/rejected": [-step, -step], "loss": [loss, loss]})


def test_a_sparkline_is_a_mean_of_what_it_stands_for() -> None:
    assert watch.sparkline(pl.Series([0.0, 1, 2, 3, 4, 5, 6, 7]), 20) == "▁▂▃▄▅▆▇█"
    assert watch.sparkline(pl.Series([0.0, 0, 7, 7]), 2) == "▁█"
    assert watch.sparkline(pl.Series([1.0, 1.0, float("nan")]), 3) == "▁▁ "
    assert watch.sparkline(pl.Series([float("inf")]), 3) == " "
    assert watch.sparkline(pl.Series([1e6, *[0.0, 1, 2, 3, 4, 5, 6, 7] * 3]), 25)[1:9] == "▁▂▃▄▅▆▇█"


@pytest.mark.parametrize("width", [50, 80, 200])
def test_all_lines_fit_and_the_loss_comes_first(tmp_path: Path, width: int) -> None:
    recorded(tmp_path / "metrics.csv")
    screen = io.StringIO()
    console = Console(file=screen, width=width, height=24)
    console.print(
        watch.draw(tmp_path, "train a learner with a long name on a dataset with a long name 100/200", console)
    )
    heading, loss, rejected, share, progress = screen.getvalue().splitlines()
    assert heading == f"{tmp_path.name}, update 199"
    assert re.fullmatch(r"loss .*█.*▁ 0\.5 *", loss)
    assert re.fullmatch(r"logps/rejected █.*▁ -199 *", rejected)
    assert share.startswith("accept_share")
    assert progress.endswith("100/200")
    assert max(map(len, screen.getvalue().splitlines())) <= width


def test_the_training_that_recorded_last_is_drawn(tmp_path: Path) -> None:
    recorded(tmp_path / "checkpoints" / "old.csv", 2)
    recorded(tmp_path / "checkpoints" / "key" / "run-3" / "metrics.csv", 2)
    os.utime(tmp_path / "checkpoints" / "old.csv", (1, 1))
    console = Console(file=io.StringIO(), width=80)
    assert "run-3" in rendered(watch.draw(tmp_path, "", console))
    os.utime(tmp_path / "checkpoints" / "key" / "run-3" / "metrics.csv", (0, 0))
    assert "old" in rendered(watch.draw(tmp_path, "", console))
    assert rendered(watch.draw(tmp_path / "none", "clone 1/2", console)) == "clone 1/2"


def rendered(drawn: object) -> str:
    screen = io.StringIO()
    Console(file=screen, width=80).print(drawn)
    return screen.getvalue().rstrip()


def test_it_draws_on_a_terminal_and_refuses_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded(tmp_path / "metrics.csv")
    with pytest.raises(UserError, match="--watch draws on a terminal, and stderr is not one"), watch.watching(tmp_path):
        pass
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        with watch.watching(tmp_path):
            report("train pmpo", 30, 60)
    screen = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while part := os.read(master, 65_536):
            screen += part
    os.close(master)
    assert re.search("loss.*█.*▁", screen.decode())
    assert "train pmpo 30/60" in screen.decode()
