import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pmpo_offline.evaluation.statistics import Interval, estimate, holm, interval, iqm, probability_of_improvement

RUNS = np.array([12.0, 3.0, 55.0, 20.0, 31.0, 8.0])


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.0, 1.0, 2.0, 3.0, 100.0], 2.0),  # one cut at either end
        ([5.0, 7.0, 9.0], 7.0),  # three runs: nothing to cut
        ([0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 50.0, 60.0], 2.5),  # two cut at either end
        ([42.0], 42.0),
    ],
)
def test_iqm_by_hand(scores, expected):
    assert iqm(np.array(scores)) == pytest.approx(expected)


def test_iqm_is_vectorised_over_leading_axes():
    scores = np.random.default_rng(0).normal(size=(4, 3, 9))
    assert iqm(scores)[2, 1] == pytest.approx(iqm(scores[2, 1]))


def test_the_interval_of_a_mean_is_students():
    found = interval([RUNS], lambda x: x.mean(axis=-1), replicates=200_000)
    theirs = stats.ttest_1samp(RUNS, 0).confidence_interval()
    assert found.estimate == pytest.approx(RUNS.mean())
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.15)
    assert estimate([RUNS], lambda x: x.mean(axis=-1), replicates=200_000).p_value == pytest.approx(
        stats.ttest_1samp(RUNS, 0).pvalue, rel=0.05
    )


def test_the_difference_of_two_means_is_welchs():
    def mean(runs):
        return estimate([runs], lambda x: x.mean(axis=-1), replicates=200_000)

    others = np.array([30.0, 90.0, 55.0])
    difference, theirs = mean(RUNS) - mean(others), stats.ttest_ind(RUNS, others, equal_var=False)
    assert difference.freedom == pytest.approx(theirs.df, rel=0.02)
    assert difference.p_value == pytest.approx(theirs.pvalue, rel=0.05)


def test_interval_is_a_function_of_its_seed():
    assert interval([RUNS], replicates=50, seed=3) == interval([RUNS], replicates=50, seed=3)
    assert interval([RUNS], replicates=50, seed=3) != interval([RUNS], replicates=50, seed=4)


@pytest.mark.parametrize(("tasks", "runs"), [(1, 3), (1, 5), (4, 3)])
def test_interval_covers_the_truth_about_as_often_as_it_says(tasks, runs):
    generator, held = np.random.default_rng(0), 0
    for trial in range(400):
        scores = [generator.normal(50 + 10 * (task - (tasks - 1) / 2), 10, size=runs) for task in range(tasks)]
        found = interval(scores, replicates=300, seed=trial)
        held += found.low <= 50 <= found.high
    assert 0.92 <= held / 400 <= 0.99


def test_tasks_are_resampled_apart():
    # Two tasks without spread between their runs: pooled resampling would see a spread of 100, stratified sees none.
    found = interval([[0.0] * 4, [100.0] * 4], replicates=500)
    assert (found.low, found.estimate, found.high) == (50.0, 50.0, 50.0)


def test_runs_that_share_a_draw_of_the_labels_are_one_unit():
    """Three draws of two equal runs are as good as three runs; six independent runs are better."""
    draws = np.array([[10.0, 10.0], [30.0, 30.0], [80.0, 80.0]])

    def width(scores):
        found = interval([scores], lambda x: x.mean(axis=-1), replicates=50_000)
        return found.high - found.low

    assert width(draws) == pytest.approx(width(draws[:, 0]), rel=0.02)
    assert width(draws) > 1.9 * width(draws.ravel())


def test_a_single_run_has_no_interval():
    assert interval([[42.0]]) == Interval(42.0, 42.0, 42.0)
    assert estimate([[42.0]]).p_value == 0


def test_holm_by_hand():
    # Sorted: .01 × 4, .02 × 3, .04 × 2, .3 × 1, and none below the one before it.
    assert holm([0.04, 0.01, 0.3, 0.02]) == pytest.approx([0.08, 0.04, 0.3, 0.06])
    assert holm([0.03, 0.02]) == pytest.approx([0.04, 0.04])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_probability_of_improvement_by_hand():
    # 3 beats 1 and 2 and ties with 3; 0 beats none: (2 + ½) of 6 comparisons.
    assert probability_of_improvement([[3.0, 0.0]], [[1.0, 2.0, 3.0]]).estimate == pytest.approx(2.5 / 6)


def test_probability_of_improvement_is_the_mann_whitney_statistic():
    others = np.array([10.0, 12.0, 40.0, 9.0])
    expected = stats.mannwhitneyu(RUNS, others).statistic / (len(RUNS) * len(others))
    interval = probability_of_improvement([RUNS], [others])
    assert interval.estimate == pytest.approx(expected)
    assert interval.low <= interval.estimate <= interval.high


def test_probability_of_improvement_averages_tasks():
    assert probability_of_improvement([[2.0], [2.0]], [[1.0], [3.0]]).estimate == pytest.approx(0.5)


def test_the_interval_of_a_probability_has_a_width_where_all_runs_win():
    # Newcombe's limits: where U = 0, p is excluded beyond p² = 1.96² V(p) of five and five runs.
    found = probability_of_improvement([[1.0] * 5], [[0.0] * 5])
    p, half = 1 - found.low, 4
    variance = p * (1 - p) * (1 + half * ((1 - p) / (2 - p) + p / (1 + p))) / 25
    assert (found.estimate, found.high) == (1.0, 1.0)
    assert 0.3 < p < 0.5
    assert p == pytest.approx(1.959964 * variance**0.5, rel=1e-4)
    mirrored = probability_of_improvement([[0.0] * 5], [[1.0] * 5])
    assert (mirrored.low, mirrored.high) == pytest.approx((0.0, 1 - found.low))


def test_more_tasks_make_a_probability_more_certain():
    few = probability_of_improvement([[3.0, 0.0]], [[1.0, 2.0]])
    many = probability_of_improvement([[3.0, 0.0]] * 9, [[1.0, 2.0]] * 9)
    assert many.estimate == few.estimate
    assert many.high - many.low < 0.5 * (few.high - few.low)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8), st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8))
def test_a_probability_lies_in_its_interval(runs, others):
    found = probability_of_improvement([runs], [others])
    assert 0 <= found.low <= found.estimate <= found.high <= 1
    assert found.high - found.low > 0.1


@pytest.mark.parametrize("scores", [[], [[]], [[1.0], []], [[[[1.0]]]]])
def test_scores_of_another_shape_are_refused(scores):
    with pytest.raises(ValueError, match="one non-empty array"):
        interval(scores)


def test_comparing_other_numbers_of_tasks_is_refused():
    with pytest.raises(ValueError, match="1 tasks cannot be compared with 2"):
        probability_of_improvement([[1.0]], [[1.0], [2.0]])
