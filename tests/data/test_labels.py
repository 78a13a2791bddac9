"""Label rules: the grammar, hand-computed thresholds, edges, ranks and mistakes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pmpo_offline.data.labels import LabelRule, cut, flip, label, rank
from pmpo_offline.runtime.errors import UserError

NAN = math.nan


def labelled(text: str, scores: list[float]) -> list[int]:
    return label(np.array(scores), LabelRule.parse(text)).tolist()


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("return", "return:q0.5"),
        ("success", "success:0.5"),
        ("advantage", "advantage:sign"),
        ("return_to_go", "return_to_go:q0.5"),
        ("q_rank", "q_rank:top_bottom:2"),
        ("q_rank:top_bottom", "q_rank:top_bottom:2"),
        ("reward:-1.5:0.25", "reward:-1.5:0.25"),
        ("column:q0.9:2", "column:q0.9:2"),
        ("advantage:sign:1e-3", "advantage:sign:0.001"),
        ("q_rank:top_bottom:1", "q_rank:top_bottom:1"),
        ("reward:-0", "reward:0"),
    ],
)
def test_a_rule_reads_what_it_writes(text: str, full: str) -> None:
    rule = LabelRule.parse(text)
    assert str(rule) == full
    assert LabelRule.parse(full) == rule
    assert LabelRule.model_validate_json(rule.model_dump_json()) == rule


@pytest.mark.parametrize("text", ["reward:0.12345678", "return:q0.1234567", "reward:0:1.0000001", "return:12345678"])
def test_a_rule_is_written_to_its_last_digit(text: str) -> None:
    assert str(LabelRule.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("advantag", "did you mean advantage"),
        ("", "unknown score"),
        ("return:median", "'median' is neither a number, a quantile"),
        ("return:q1.5", "between q0 and q1"),
        ("return:q", "neither a number, a quantile"),
        ("return:nan", "neither a number"),
        ("return:1:2:3", "nothing may follow the margin"),
        ("return:1:-2", "a margin is 0 or more"),
        ("return:top_bottom:2", "goes with q_rank"),
        ("q_rank:0.5", "goes with q_rank"),
        ("q_rank:top_bottom:1.5", "a whole number"),
        ("q_rank:top_bottom:0", "a whole number"),
        ("q_rank:top_bottom:2:0.1", "no margin"),
    ],
)
def test_malformed_rule_names_the_part(text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        LabelRule.parse(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_units_follow_from_the_score() -> None:
    units = {name: LabelRule.parse(name).unit for name in ("return", "success", "advantage", "return_to_go", "reward")}
    assert units == {
        "return": "episode",
        "success": "episode",
        "advantage": "step",
        "return_to_go": "step",
        "reward": "step",
    }
    assert LabelRule.parse("q_rank").unit == "response"


def test_a_number_is_rejected_at_and_below_itself() -> None:
    assert labelled("reward:1", [0.9, 1.0, 1.1, NAN]) == [-1, -1, 1, 0]


def test_sign_leaves_zero_unlabelled() -> None:
    assert labelled("advantage", [-2.0, -0.0, 0.0, 1e-30, NAN, math.inf, -math.inf]) == [-1, 0, 0, 1, 0, 1, -1]


def test_success_splits_at_one_half() -> None:
    assert labelled("success", [0.0, 1.0]) == [-1, 1]


def test_the_dead_zone_includes_its_edges() -> None:
    assert labelled("reward:1:0.5", [0.25, 0.5, 0.75, 1.0, 1.5, 1.75]) == [-1, 0, 0, 0, 0, 1]
    assert labelled("advantage:sign:1", [-2.0, -1.0, 0.5, 1.0, 2.0]) == [-1, 0, 0, 0, 1]


def test_a_quantile_is_of_the_known_scores() -> None:
    scores = np.array([4.0, NAN, 1.0, 2.0, 3.0])
    assert cut(scores, LabelRule.parse("return")) == 2.5
    assert cut(scores, LabelRule.parse("return:q1")) == 4.0
    assert labelled("return", scores.tolist()) == [1, 0, -1, -1, 1]
    assert labelled("return:q0", scores.tolist()) == [1, 0, -1, 1, 1]  # the lowest is at the cut


def test_a_quantile_of_nothing_labels_nothing() -> None:
    assert labelled("return", [NAN, NAN]) == [0, 0]


def test_ranks_within_a_state() -> None:
    scores = np.array([[3.0, 1.0, 4.0, 2.0], [0.0, -1.0, -2.0, -3.0]])
    assert rank(scores, 2).tolist() == [[1, -1, 1, -1], [1, 1, -1, -1]]
    assert rank(scores, 1).tolist() == [[0, -1, 1, 0], [1, 0, 0, -1]]


def test_equal_scores_are_ordered_only_within_a_class() -> None:
    assert rank(np.array([[5.0, 5.0, 5.0, 5.0]]), 2).tolist() == [[0, 0, 0, 0]]
    assert rank(np.array([[9.0, 5.0, 5.0, 1.0]]), 2).tolist() == [[1, 0, 0, -1]]
    assert rank(np.array([[5.0, 5.0, 1.0, 0.0]]), 1).tolist() == [[1, 0, 0, -1]]  # the earlier ranks higher


def test_unknown_scores_are_not_ranked() -> None:
    assert rank(np.array([[NAN, 1.0, 2.0, 3.0]]), 1).tolist() == [[0, -1, 0, 1]]
    assert rank(np.array([[NAN, 1.0, 2.0, 3.0]]), 2).tolist() == [[0, 0, 0, 0]]  # not enough to rank two and two


def test_ranking_too_many_names_the_largest_k() -> None:
    with pytest.raises(UserError, match="needs 6 candidates per state, there are 4: choose k up to 2"):
        rank(np.zeros((1, 4)), 3)


@given(arrays(np.float32, st.tuples(st.integers(1, 8), st.integers(2, 7)), elements=st.integers(-3, 3).map(float)))
def test_no_accept_scores_at_or_below_a_reject(scores: np.ndarray) -> None:
    labels = rank(scores, scores.shape[1] // 2)
    for row, signs in zip(scores, labels, strict=True):
        assert (signs > 0).sum() <= scores.shape[1] // 2
        if (signs > 0).any() and (signs < 0).any():
            assert row[signs > 0].min() > row[signs < 0].max()


def test_mistakes_flip_at_their_rate_and_only_labels() -> None:
    labels = np.tile(np.array([1, -1, 0], np.int8), 20_000)
    flipped = flip(labels, 0.1, seed=3)
    mistaken = flipped != labels
    assert (flipped[labels == 0] == 0).all()
    assert (np.abs(flipped) == np.abs(labels)).all()
    for sign in (1, -1):  # 20,000 independent draws: a standard deviation is 0.0021
        assert abs(mistaken[labels == sign].mean() - 0.1) < 0.01
    assert flip(labels, 0.1, seed=3).tolist() == flipped.tolist()
    assert (flip(labels, 0.1, seed=4) != flipped).any()


def test_mistakes_at_a_lower_rate_are_among_those_at_a_higher() -> None:
    labels = np.ones(1000, np.int8)
    low, high = flip(labels, 0.1, seed=0) < 0, flip(labels, 0.3, seed=0) < 0
    assert (low <= high).all()
    assert low.sum() < high.sum()
    assert (flip(labels, 0.0, seed=0) == labels).all()
    assert (flip(labels, 1.0, seed=0) == -labels).all()


@pytest.mark.parametrize("rate", [-0.1, 1.1, NAN])
def test_a_flip_rate_is_a_rate(rate: float) -> None:
    with pytest.raises(UserError, match="expected a flip rate between 0 and 1"):
        flip(np.ones(3, np.int8), rate, seed=0)


def test_numbers_are_compared_in_the_scores_own_precision() -> None:
    scores = np.array([0.1, 0.2, 0.05], np.float32)
    assert label(scores, LabelRule.parse("column:0.1")).tolist() == [-1, 1, -1], "0.1 does not exceed 0.1"
    assert label(scores, LabelRule.parse("column:sign:0.1")).tolist() == [0, 1, 0]
    edges = np.array([0.6, 0.4, 0.61, 0.39], np.float32)
    assert label(edges, LabelRule.parse("column:0.5:0.1")).tolist() == [0, 0, 1, -1]
    assert cut(scores, LabelRule.parse("column:0.1")) == 0.1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_quantile_among_ties_at_the_top_cuts_below_them(dtype: type) -> None:
    half = LabelRule.parse("column:q0.5")
    rated = np.array([1] * 7 + [-1] * 3, dtype)
    assert label(rated, half).tolist() == [1] * 7 + [-1] * 3
    assert cut(rated, half) == 0
    stars = np.array([5, 5, 5, 4, 1], dtype)
    assert label(stars, half).tolist() == [1, 1, 1, -1, -1]
    assert cut(stars, half) == 4.5
    close = np.array([np.nextafter(dtype(1), dtype(0)), 1, 1], dtype)
    assert label(close, half).tolist() == [-1, 1, 1]
    assert label(np.array([1, 2, 2, 3], dtype), half).tolist() == [-1, -1, -1, 1], "the ties are not at the top"
    assert label(np.array([2, 2, 2], dtype), half).tolist() == [-1, -1, -1]
    assert label(rated, LabelRule.parse("column:q1")).tolist() == [-1] * 10
