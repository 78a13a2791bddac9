import io
import re

import pytest
from rich.console import Console

from pmpo_offline.runtime import progress


def test_a_part_is_shown_behind_the_whole():
    stages = progress.Stages()
    assert stages.update("benchmark", 0, 3) == "benchmark"
    assert stages.update("train", 5, 10) == "benchmark 0/3 · train"
    assert stages.update("train", 10, 10) == "benchmark 0/3 · train"
    assert stages.update("benchmark", 1, 3) == "benchmark"
    assert stages.update("evaluate", 1, 2) == "benchmark 1/3 · evaluate"
    assert stages.update("benchmark", 3, 3) == "benchmark"
    assert stages.update("write", 0, 1) == "evaluate 1/2 · write"


def test_a_log_of_an_hour_has_few_lines(capsys):
    seconds = iter(range(10**6))
    report = progress.lines(lambda: float(next(seconds)))
    for done in range(1_800):  # two looks at the clock a report at most
        report("train", done, 1_800)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "train: 0/1800"
    assert 5 <= len(lines) <= 12


@pytest.mark.parametrize("width", [50, 80])
def test_a_terminal_has_one_line_with_whole_numbers(monkeypatch, width):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, color_system=None, width=width, height=24)
    monkeypatch.setattr("rich.console.Console", lambda **_: console)
    with progress._bar() as report:
        report("benchmark", 1, 12)
        report("pmpo on shuffled labels, rgb-stacking/proxy-accept10-v0 at 0.1, noise 0.3: train", 400, 1_500)
    # The last line that was drawn, before it is erased.
    lines = [line for line in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "\n", screen.getvalue()).splitlines() if line.strip()]
    (last,) = [line for line in lines if "train" in line]
    assert last.startswith("benchmark 1/12 · " if width == 80 else "benchmark")
    assert "400/1500 0:00:00" in last
    assert len(last) <= width


@pytest.mark.parametrize("width", range(8))
def test_texts_are_cut_in_the_middle(width):
    assert len(progress.cut("abcdefgh", width)) <= max(width, 1)
    assert progress.cut("abcdefgh", 8) == "abcdefgh"
    assert progress.cut("abcdefgh", 5) == "ab…gh"
