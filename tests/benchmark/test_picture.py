"""The picture of a table: panels, what rows are compared with, and the colours of algorithms, clones and controls."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from helpers.raw_scores import raw_scores

from pmpo_offline.benchmark import report
from pmpo_offline.benchmark.report import picture  # before a fixture of the folder puts another in its place
from pmpo_offline.benchmark.table import table


def test_panels_say_what_their_rows_are_compared_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = pl.concat(
        raw_scores(
            f"{algo}{noise}{shuffled}", [[score], [score + 2]], algo=algo, noise=noise, shuffled=shuffled, **more
        )
        for noise in (0.0, 0.1)
        for algo, score, shuffled, more in (
            ("bc", 20.0, False, {"reference": True}),
            ("bc-accepted", 40.0, False, {"filtered": True}),
            ("kto", 45.0, False, {"beta": None, "beta_min": None}),
            ("pmpo", 50.0, False, {"beta": 0.65}),
            ("pmpo", 15.0, True, {"beta": 0.65}),
        )
    )
    drawn = []
    monkeypatch.setattr(report, "picture", lambda *given: drawn.append(picture(*given)) or drawn[0])
    report.write(tmp_path, "Lines", raw, table(raw))
    panels = drawn[0].axes
    assert [axes.get_title(loc="left") for axes in panels] == [
        "test/line-v0, 0.1 accepted",
        "test/line-v0, 0.1 accepted, noise 0.1",
    ]
    for axes in panels:
        labels = [text.get_text() for text in axes.get_yticklabels()]
        assert labels == ["bc", "bc-accepted", "kto", "pmpo", "pmpo (shuffled)"]
        dots = {labels[int(line.get_ydata()[0])]: line for line in axes.lines if line.get_marker() == "o"}
        (rule,) = (line for line in axes.lines if line.get_linestyle() == "--")
        # The better filtered clone: returns of 40 and 42 between 10 and 60 are scores of 60 and 64.
        assert list(rule.get_xdata()) == [pytest.approx(62)] * 2
        assert dots["bc-accepted"].get_xdata()[0] == pytest.approx(62)
        assert dots["bc"].get_color() == dots["bc-accepted"].get_color() != dots["kto"].get_color()
        assert dots["pmpo"].get_color() == dots["pmpo (shuffled)"].get_color() != dots["kto"].get_color()
        assert (dots["pmpo (shuffled)"].get_markerfacecolor(), dots["pmpo"].get_markerfacecolor()) == (
            "white",
            dots["pmpo"].get_color(),
        )
