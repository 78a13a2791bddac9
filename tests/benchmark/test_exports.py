import csv
import io
import json

import numpy as np
import polars as pl
import pytest
from helpers.raw_scores import raw_scores

from pmpo_offline.benchmark import exports
from pmpo_offline.benchmark.table import table
from pmpo_offline.runtime.errors import UserError


@pytest.fixture
def raw() -> pl.DataFrame:
    """Two algorithms on two datasets of three runs, and a third that has only one dataset."""
    parts = [
        raw_scores(f"{algo}{data}", [[start + run] for run in range(3)], algo=algo, dataset=f"test/line_{data}-v0")
        for data in (0, 1)
        for algo, start in {"pmpo": 35.0, "dpo": 10.0 + data}.items()
    ]
    return pl.concat([*parts, raw_scores("k", [[1.0]] * 3, algo="kto", dataset="test/line_0-v0")])


def test_score_matrix_by_hand(raw, tmp_path):
    with pytest.warns(UserWarning, match="not in the matrix.*2 conditions: kto"):
        exports.write_scores(tmp_path / "s.npz", raw, table(raw))
    stored = np.load(tmp_path / "s.npz")
    assert stored["tasks"].tolist() == ["test/line_0-v0, 0.1 accepted", "test/line_1-v0, 0.1 accepted"]
    # Returns of 10 and 60 are 0 and 1.
    assert stored["pmpo"].tolist() == [[0.5, 0.5], [0.52, 0.52], [0.54, 0.54]]
    assert stored["dpo"] == pytest.approx(np.array([[0.0, 0.02], [0.02, 0.04], [0.04, 0.06]]))
    with pytest.warns(UserWarning, match="kto"):
        exports.write_scores(tmp_path / "s.json", raw, table(raw))
    assert json.loads((tmp_path / "s.json").read_text())["scores"]["dpo"] == stored["dpo"].tolist()


def test_score_matrix_needs_equally_many_runs_and_a_known_form(raw, tmp_path):
    with pytest.raises(UserError, match=r"s\.txt: the matrix of scores is written as \.npz or \.json"):
        exports.write_scores(tmp_path / "s.txt", raw, table(raw))
    uneven = raw.filter(~((pl.col("dataset") == "test/line_1-v0") & (pl.col("seed") == 2)), pl.col("algo") != "kto")
    with pytest.raises(UserError, match="equally many"):
        exports.score_matrix(uneven, table(uneven))


def test_csv_has_every_row_and_number(raw):
    rows = table(raw)
    read = [*csv.DictReader(io.StringIO(exports.csv(rows)))]
    assert [float(line["iqm"]) for line in read] == [row["iqm"] for row in rows]
    assert {"low", "high", "improvement", "improvement_low", "improvement_high"} <= {*read[0]}


def test_latex_escapes_and_leaves_out_columns_of_dashes():
    awkward = raw_scores("k", [[-35.0]] * 2, algo="a_b&c%d", beta=None, beta_min=None, reference=True)
    text = exports.latex(table(awkward))
    assert r"a\_b\&c\%d" in text
    assert r"95 \% interval" in text
    assert "$-$90.0 -- $-$90.0" in text
    assert "bound" not in text
    assert text.startswith("\\begin{tabular}{ll")
    assert text.count("\\\\\n") == 2
