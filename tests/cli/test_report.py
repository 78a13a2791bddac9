"""The command `report`: where its files are, and what it prints in their place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.raw_scores import raw_scores

from pmpo_offline.benchmark.results import Results
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
