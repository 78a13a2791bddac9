"""The command `report`: where its files are, and what it prints in their place."""

from __future__ import annotations

import json
import subprocess
import sys
from io import StringIO
from pathlib import Path

import polars as pl
import pytest
from helpers.raw_scores import raw_scores
from rich.console import Console

from pmpo_offline.benchmark.report import cells
from pmpo_offline.benchmark.results import Results
from pmpo_offline.benchmark.table import table
from pmpo_offline.cli.bench import tables
from pmpo_offline.cli.main import run


def test_report_prints_where_its_files_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, table, scores = (str(tmp_path / name) for name in ("results", "table.csv", "scores.json"))
    Results(Path(folder)).write("0" * 16, raw_scores("0" * 16, [[1.0, 2.0], [3.0, 4.0]]), "m" * 64)
    assert run(["report", folder, "--csv", table, "--scores", scores]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-3:] == [f"report: {folder}/report.md", f"csv: {table}", f"scores: {scores}"]
    assert run(["report", folder, "--csv", table, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] == {"csv": table}
    for place in ("/", folder):
        assert run(["report", folder, "--csv", place]) == 1
        assert capsys.readouterr().err.endswith(f"error: {place}: Is a directory; check the path\n")
    assert run(["report", folder, "--csv", "-", "--latex", str(tmp_path / "table.tex")]) == 0
    assert capsys.readouterr().out == Path(table).read_text()


def test_a_table_is_made_again_without_what_trained_its_policies(tmp_path: Path) -> None:
    Results(tmp_path).write("0" * 16, raw_scores("0" * 16, [[1.0, 2.0], [3.0, 4.0]]), "m" * 64)
    code = f"import sys; from pmpo_offline.cli.main import run; run(['report', {str(tmp_path)!r}])\n"
    code += "sys.exit(not {'torch', 'altair'}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("width", [40, 50, 80, 200])
def test_tables_of_the_terminal_fit_it_and_cut_no_number(width: int) -> None:
    named = {"algo": "an-algorithm-of-a-long-name", "settings": '{"beta": 12.5, "alpha": 0.25}', "beta_min": 12.5}
    wide = raw_scores("w", [[-1e3], [300.0], [100.0]], **named, beta=12.5, imbalance=0.5, share=0.5)
    other = raw_scores(
        "o", [[1.0]], **named | {"settings": '{"beta": 0.5, "alpha": 0.75}'}, beta=0.5, imbalance=0.5, share=0.5
    )
    drift = {"kl": 4.0, "token_kl": 4.0, "distinct": 0.5, "reference_logp": -2.0, "perplexity": None}
    wide = wide.with_columns(pl.lit(value, pl.Float64).alias(name) for name, value in drift.items())
    rows = table(pl.concat([wide, other, raw_scores("p", [[60.0]] * 2)]))
    console = Console(width=width, file=StringIO())
    for part in tables("A title that is as long as titles of suites are", rows, width):
        console.print(part, crop=False)
    text = console.file.getvalue()
    assert "…" not in text
    for row in cells(rows):
        numbers = [row[name] for name in ("IQM", "95 % interval", "mean", "β ≥ bound", "KL") if name in row]
        assert all(number in text for number in numbers)
    assert "perplexity  " not in text, "a column of dashes"
    assert width < 80 or text.count("algorithm ") == 2, "a table of the dataset, and one of drift"
    assert width < 50 or max(map(len, text.splitlines())) <= width
