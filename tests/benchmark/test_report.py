import json
import math

import polars as pl
import pytest

from pmpo_offline.benchmark import report, report_on
from pmpo_offline.benchmark.results import Results
from pmpo_offline.benchmark.table import table
from pmpo_offline.evaluation.statistics import interval as interval_of


def markdown(rows) -> str:
    return report.markdown("T", pl.DataFrame(), rows)


@pytest.fixture
def raw(scores) -> pl.DataFrame:
    pmpo = scores("p", [[60.0, 60.0], [35.0, 35.0], [10.0, 35.0], [60.0, 35.0], [85.0, 85.0]])
    control = scores("s", [[10.0]] * 5, shuffled=True)
    bc = scores("b", [[35.0]] * 5, algo="bc", settings="{}", beta=None, beta_min=None, reference=True)
    return pl.concat([control, pmpo, bc])


def test_row_by_hand(raw):
    # Normalized with 10 → 0 and 60 → 100, the runs score 100, 50, 25, 75, 150: the middle three average 75.
    row = table(raw)[1]
    interval = interval_of([[100.0, 50.0, 25.0, 75.0, 150.0]])
    assert {name: row[name] for name in ("dataset", "algo", "imbalance", "noise", "seeds", "metric", "episodes")} == {
        "dataset": "test/line-v0",
        "algo": "pmpo",
        "imbalance": 0.1,
        "noise": 0.0,
        "seeds": 5,
        "metric": "normalized_score",
        "episodes": 2,
    }
    assert (row["iqm"], row["mean"], row["success"]) == pytest.approx((75.0, 80.0, 0.5))
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
    assert (row["beta"], row["beta_min"], row["bounded"]) == (1.0, 0.65, True)
    # Against five runs of 50: three above, one tie, one below.
    assert row["improvement"][0] == pytest.approx(3.5 / 5)


def test_rows_are_compared_with_the_better_filtered_clone(raw, scores):
    accepted = scores("a", [[40.0], [45.0], [50.0]], algo="bc-accepted", filtered=True)
    unrejected = scores("u", [[55.0], [60.0], [58.0]], algo="bc-unrejected", filtered=True)
    shuffled = scores("us", [[85.0]] * 3, algo="bc-unrejected", filtered=True, shuffled=True)
    rows = {row["algo"]: row for row in table(pl.concat([raw, accepted, unrejected, shuffled]))}
    assert rows["bc-unrejected"]["compared"] is rows["bc-unrejected"]["improvement"] is None
    others = [row for name, row in rows.items() if name != "bc-unrejected"]
    assert {row["compared"] for row in others} == {"bc-unrejected"}
    # bc is 50 in all runs; the clone is 90, 100 and 96, 95.33 on average with t of 2 degrees of freedom.
    bc = rows["bc"]
    assert bc["improvement"] == [0.0, 0.0, pytest.approx(0.6, abs=0.2)]
    assert bc["margin"][0] == pytest.approx(50 - 286 / 3)
    assert bc["margin"][2] == pytest.approx(50 - 286 / 3 + 4.303 * 5.033 / 3**0.5, abs=0.3)
    assert rows["pmpo"]["p_value"] > 0.05 > bc["p_value"] > 0
    text = markdown([*rows.values()])
    assert "P(>filter)" in text
    assert "a run of the better filtered clone (marked filter) on the same data" in text
    assert "| 0.00 * |" in text


@pytest.mark.parametrize(("runs", "others"), [(1, 1), (1, 3), (3, 1)])
def test_no_difference_from_a_single_run_is_called_significant(scores, runs, others):
    filtered = scores("a", [[40.0], [41.0], [42.0]][:others], algo="bc-accepted", filtered=True)
    rows = table(pl.concat([scores("p", [[90.0], [91.0], [92.0]][:runs], algo="pmpo"), filtered]))
    (row,) = [row for row in rows if row["algo"] == "pmpo"]
    assert (row["compared"], row["improvement"][0], row["p_value"]) == ("bc-accepted", 1.0, None)
    assert "| 1.00 |" in markdown(rows)


def test_without_filtered_clones_the_table_says_what_it_compares_with(raw):
    rows = table(raw)
    assert [row["compared"] for row in rows] == [None, "bc", "bc"]
    text = markdown(rows)
    assert "P(>bc)" in text
    assert "a run of the reference bc on the same data" in text


def test_reference_comes_first_and_the_control_is_marked(raw):
    rows = table(raw)
    assert [row["algo"] for row in rows] == ["bc", "pmpo", "pmpo (shuffled)"]
    assert rows[0]["improvement"] is None
    assert rows[0]["bounded"] is None
    assert rows[2]["shuffled"]


def test_table_does_not_depend_on_the_order_of_the_records(raw):
    assert table(raw.sample(fraction=1.0, shuffle=True, seed=1)) == table(raw)


@pytest.mark.parametrize(
    ("beta", "collapse", "regime", "cell"),
    [
        (0.7, 0.1, "bounded", "| 0.7 ≥ 0.65 |"),
        (0.4, 0.1, "no minimum", "| 0.4 < 0.65 ! |"),
        (0.1, 0.1, "collapse", "| 0.1 < 0.65 !! |"),
        (0.4, None, None, "| 0.4 < 0.65 ! |"),  # older scores
    ],
)
def test_the_regime_of_beta_is_marked(scores, beta, collapse, regime, cell):
    rows = table(scores("p", [[1.0]] * 2, beta=beta, beta_collapse=collapse))
    assert (rows[0]["bounded"], rows[0]["regime"]) == (beta >= 0.65, regime)
    assert cell in markdown(rows)


@pytest.mark.parametrize(
    ("reach", "loss", "diverged"), [(3.0, -50.0, 0), (300.0, -50.0, 2), (1.0, -5e10, 2), (math.nan, 0.0, 2)]
)
def test_runs_that_left_all_bounds_are_marked(scores, reach, loss, diverged):
    rows = table(scores("p", [[1.0]] * 2, reach=reach, loss=loss))
    assert rows[0]["diverged"] == diverged
    assert ("| pmpo † |" in markdown(rows)) is ("- **†**: a run diverged" in markdown(rows)) is bool(diverged)


def test_without_references_the_metric_is_the_return(scores):
    row = table(scores("p", [[3.0], [5.0]], reference_min=None, reference_max=None))[0]
    assert (row["metric"], row["iqm"]) == ("return", 4.0)


def test_conditions_are_compared_apart(scores):
    low = scores("b1", [[10.0]] * 3, algo="bc", reference=True)
    high = scores("b2", [[60.0]] * 3, algo="bc", reference=True, imbalance=0.5, dataset_sha="b" * 64)
    collected = scores("p0", [[35.0]] * 3, imbalance=None, dataset_sha="c" * 64)
    learners = [
        scores("p1", [[35.0]] * 3),
        scores("p2", [[35.0]] * 3, imbalance=0.5, dataset_sha="b" * 64),
    ]
    rows = table(pl.concat([collected, high, low, *learners]))
    found = [(row["imbalance"], row["algo"], row["improvement"] and row["improvement"][0]) for row in rows]
    assert found == [(0.1, "bc", None), (0.1, "pmpo", 1.0), (0.5, "bc", None), (0.5, "pmpo", 0.0), (None, "pmpo", None)]


@pytest.mark.parametrize(
    ("distinct", "reference_logp", "collapsed"), [(0.5, -3.0, False), (0.3, -1.0, True), (0.9, -4.1, True)]
)
def test_drift_of_language_models_by_hand(scores, distinct, reference_logp, collapsed):
    def drift(frame, **values):
        return frame.with_columns(pl.lit(value, pl.Float64).alias(name) for name, value in values.items())

    usual = {"kl": 0.0, "token_kl": 0.0, "distinct": 0.8, "reference_logp": -2.0, "perplexity": 9.0}
    bc = drift(scores("b", [[10.0]] * 2, algo="bc", reference=True), **usual)
    moved = drift(scores("p", [[10.0]] * 2), kl=1.0, token_kl=0.2, distinct=distinct, reference_logp=reference_logp)
    rows = table(pl.concat([bc, moved, scores("other", [[10.0]], dataset="test/other-v0")]))
    found = [[row[name] for name in ("kl", "distinct", "reference_logp", "collapsed")] for row in rows]
    assert found[0] == [0.0, 0.8, -2.0, False]
    assert found[1] == [pytest.approx(0.2 * 9), distinct, reference_logp, collapsed]
    assert found[2] == [None] * 4
    text = markdown(rows)
    assert f"| 1.80{' !' if collapsed else ''} | {distinct:.2f} | {reference_logp:.2f} | – |" in text
    assert "| – | – | – | – |\n" in text


def test_infinite_numbers_are_null_in_json_and_inf_in_the_table(tmp_path, scores):
    moved = scores("p", [[10.0]] * 2, beta_min=float("inf"))
    drift = {"kl": 1.0, "token_kl": 0.2, "distinct": 0.5, "reference_logp": -2.0, "perplexity": float("inf")}
    rows = table(moved.with_columns(pl.lit(value, pl.Float64).alias(name) for name, value in drift.items()))
    report.write(tmp_path, "T", pl.DataFrame(), rows)

    def refuse(text):
        raise ValueError(f"{text} is no JSON")

    (row,) = json.loads((tmp_path / "report.json").read_text(), parse_constant=refuse)["rows"]
    assert row["perplexity"] is row["beta_min"] is None
    assert row["bounded"] is False
    text = (tmp_path / "report.md").read_text()
    assert "1 < inf !" in text
    assert "| -2.00 | inf |" in text


def test_the_critic_behind_candidates_is_named_with_what_it_knows(scores):
    dataset, learners = "dm_control/cartpole-swingup-medium-v0", ("pmpo", "dpo", "mpo")
    rows = table(pl.concat([scores(algo, [[20.0]], algo=algo, dataset=dataset) for algo in learners]))
    known = (
        "a critic ranks the candidates that dpo, mpo learn from: it puts 0.59 (0.54 – 0.63) of them on the right side"
    )
    assert known in report.notes_section(pl.DataFrame(), rows)
    one, none = ([row for row in rows if row["algo"] in algos] for algos in ({"pmpo", "dpo"}, {"pmpo"}))
    assert "the candidates that dpo learns from" in report.notes_section(pl.DataFrame(), one)
    assert "critic" not in report.notes_section(pl.DataFrame(), none)


def test_tables_without_language_models_say_nothing_of_drift(raw):
    text = markdown(table(raw))
    assert "KL" not in text
    assert "| β ≥ bound |\n" in text


def test_a_report_is_made_of_registered_sections(raw, monkeypatch):
    assert [*report.SECTIONS][:4] == ["table", "notes", "figure", "versions"]
    monkeypatch.setitem(
        report.SECTIONS._own, "seeds", lambda raw, rows: f"{raw['seed'].n_unique()} in {len(rows)} rows"
    )
    monkeypatch.setitem(report.SECTIONS._own, "nothing", lambda raw, rows: "")
    assert report.markdown("T", raw, table(raw)).endswith("Made with pmpo-offline 0.1.0.\n\n5 in 3 rows\n")


def test_only_settings_that_vary_are_shown(scores):
    half = scores("h", [[1.0]] * 2, settings='{"alpha": 0.5, "beta": 0.5}', beta=0.5)
    rows = table(pl.concat([scores("p", [[1.0]] * 2), half]))
    text = markdown(rows)
    assert "| beta=0.5 |" in text
    assert "| beta=1 |" in text
    assert "alpha" not in text


def test_report_is_computed_from_the_directory_alone(tmp_path, raw):
    results = Results(tmp_path)
    for (name,), frame in raw.group_by("key"):
        results.write(str(name), frame.drop("key"))
    done = report_on(tmp_path)
    assert done.rows == table(raw)
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["rows"] == done.rows
    assert (tmp_path / written["raw"]) == done.raw
    text = done.report.read_text()
    assert text.count("\n| test/line-v0 |") == 3
    assert (tmp_path / "report.png").read_bytes()[:4] == b"\x89PNG"
    assert done.table()["iqm"].to_list() == [row["iqm"] for row in done.rows]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw", "report.json", "report.md", "report.png"]
