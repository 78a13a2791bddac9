"""What the charts of a report are made from, by hand."""

from collections.abc import Sequence

import polars as pl
import pytest
from helpers.raw_scores import raw_scores

from pmpo_offline.benchmark.html import charts, comparisons
from pmpo_offline.benchmark.table import table


def values(section: object, raw: pl.DataFrame) -> Sequence[dict]:
    drawn = section.draw(raw, table(raw))
    return drawn[0]["datasets"]["values"] if drawn else []


def test_tuning_budget_is_the_expected_best_of_k_settings():
    # Returns of 10, 35 and 60 score 0, 50 and 100: of two settings the best is 50, 100 or 100.
    raw = pl.concat([raw_scores(str(n), [[10 + 25.0 * n]], algo=f"pmpo #{n + 1}") for n in range(3)])
    assert [(each["settings"], each["score"]) for each in values(charts.TUNING, raw)] == [
        (1, pytest.approx(50.0)), (2, pytest.approx(250 / 3)), (3, pytest.approx(100.0)),
    ]  # fmt: skip
    assert values(charts.TUNING, raw_scores("p", [[1.0]])) == []


def test_grid_is_the_margin_over_the_better_clone_on_the_same_labels():
    parts = []
    for share, clone, method in ((0.1, 20.0, 35.0), (0.5, 40.0, 30.0)):
        about = {"imbalance": share, "dataset_sha": str(share)}
        parts += [raw_scores(f"c{share}", [[clone]], algo="bc-accepted", filtered=True, **about)]
        parts += [raw_scores(f"b{share}", [[10.0]], algo="bc", reference=True, **about)]
        parts += [raw_scores(f"p{share}", [[method]], **about)]
    found = {each["share"]: each["margin"] for each in values(charts.GRID, pl.concat(parts))}
    assert found == {"0.1": pytest.approx(30.0), "0.5": pytest.approx(-20.0)}


def test_stability_is_in_multiples_of_the_bound_with_both_thresholds():
    sweep = [
        raw_scores(str(beta), [[10.0]], beta=beta, settings=f'{{"beta": {beta}}}', beta_min=0.5, beta_collapse=0.25)
        for beta in (0.2, 0.5, 1.0)
    ]
    (drawn,) = charts.STABILITY.draw(pl.concat(sweep), table(pl.concat(sweep)))
    assert sorted(each["factor"] for each in drawn["datasets"]["values"]) == [0.4, 1.0, 2.0]
    assert {each["at"] for each in drawn["datasets"]["thresholds"]} == {0.5}


def test_updates_are_a_curve_where_there_are_several():
    curve = [raw_scores(str(n), [[10.0 + n]], training=f'{{"updates": {n}}}') for n in (10, 20)]
    other = raw_scores("o", [[10.0]], algo="dpo")
    found = values(charts.UPDATES, pl.concat([*curve, other]))
    assert [(each["method"], each["updates"], each["iqm"]) for each in found] == [
        ("pmpo", 10, 20.0),
        ("pmpo", 20, 40.0),
    ]


def test_probability_of_improvement_and_its_complement():
    raw = pl.concat([raw_scores("a", [[10.0], [30.0]], algo="a"), raw_scores("b", [[20.0], [20.0]], algo="b")])
    found = {(each["ours"], each["theirs"]): each["probability"] for each in values(comparisons.IMPROVEMENT, raw)}
    assert found == {("a", "b"): 0.5, ("b", "a"): 0.5}
