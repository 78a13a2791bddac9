"""Names from files of others, in every form of a report: no markup, no control characters of a terminal."""

from __future__ import annotations

import io
from pathlib import Path

import polars as pl
import pytest
from helpers.raw_scores import raw_scores
from rich.console import Console
from rich.text import Text

from pmpo_offline.benchmark.exports import FORMS
from pmpo_offline.benchmark.leaderboard import results_in
from pmpo_offline.benchmark.report import report_on
from pmpo_offline.benchmark.results import Results
from pmpo_offline.benchmark.table import table
from pmpo_offline.cli.bench import tables
from pmpo_offline.declarations import catalog
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError

HOSTILE = [
    "<script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
    "[bold]x[/bold]",
    "[page](javascript:alert(1))",
    "a|b",
    "../../etc/passwd",
    "$x_1$\\input{/etc/passwd}&%#",
]


def test_markup_in_names_is_shown_as_it_is(tmp_path: Path) -> None:
    for number, name in enumerate(HOSTILE):
        key = f"{number:016x}"
        Results(tmp_path).write(key, raw_scores(key, [[1.0, 2.0], [3.0, 4.0]], algo=name, dataset=name), "m" * 64)
    done, raw = report_on(tmp_path), results_in(tmp_path).read()
    texts = {name: form(done, raw) for name, form in FORMS.items()}
    for tag in ("<script>alert", "<img src=x", 'href="javascript:'):
        assert tag not in texts["html"]
        assert tag not in texts["markdown"]
    assert r"a\|b" in texts["markdown"]
    assert r"\[page](javascript" in texts["markdown"]
    assert r"\input{" not in texts["latex"]
    shown = io.StringIO()
    console = Console(file=shown, width=200)
    for part in tables(done.title, done.rows, 200):
        console.print(part, crop=False)
    assert all(name in shown.getvalue() for name in HOSTILE)
    assert {path.name for path in tmp_path.iterdir()} == {"raw", "report.json", "report.md", "report.png"}


@pytest.mark.parametrize("width", [72, 80])
def test_no_line_of_the_legend_breaks_within_an_id(width: int) -> None:
    name = "mujoco/halfcheetah-medium-replay-v0"
    rows = table(
        raw_scores("0" * 16, [[1.0, 2.0]], dataset=name).with_columns(labels_sha=pl.lit("0" * 64), labels_here=True)
    )
    notes = [part.plain for part in tables("T", rows, width) if isinstance(part, Text)]
    assert any(note.startswith("labels: ") and name in note for note in notes)


@pytest.mark.parametrize("name", ["\x1b[31mred\x1b[0m", "a\n| b", "\u202egnp"])
def test_control_characters_are_refused(tmp_path: Path, name: str) -> None:
    Results(tmp_path).write("0" * 16, raw_scores("0" * 16, [[1.0, 2.0]], algo=name), "m" * 64)
    with pytest.raises(PmpoOfflineError, match="algo holds '"):
        report_on(tmp_path)
    (tmp_path / "small.toml").write_text(
        f'title = "{ascii(name)[1:-1].replace("x1b", "u001b")}"\ndatasets = ["a/b-v0"]\n'
    )
    with pytest.raises(UserError, match="characters that a table cannot show"):
        catalog.suite(str(tmp_path / "small.toml"))
