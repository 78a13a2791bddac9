import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pmpo_offline.evaluation.statistics import bootstrap, iqm, probability_of_improvement

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


def test_interval_agrees_with_scipy():
    ours = bootstrap([RUNS], replicates=50_000)
    theirs = stats.bootstrap(
        (RUNS,), lambda x, axis: stats.trim_mean(x, 0.25, axis=axis), n_resamples=50_000, method="percentile", rng=1
    ).confidence_interval
    assert ours.estimate == pytest.approx(iqm(RUNS))
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.6)


def test_interval_is_a_function_of_its_seed():
    assert bootstrap([RUNS], replicates=50, seed=3) == bootstrap([RUNS], replicates=50, seed=3)
    assert bootstrap([RUNS], replicates=50, seed=3) != bootstrap([RUNS], replicates=50, seed=4)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    held = 0
    for trial in range(400):
        interval = bootstrap([generator.normal(50, 10, size=20)], replicates=1000, seed=trial)
        held += interval.low <= 50 <= interval.high
    assert 0.90 <= held / 400 <= 0.98


def test_tasks_are_resampled_apart():
    # Two tasks without spread between their runs: pooled resampling would see a spread of 100, stratified sees none.
    interval = bootstrap([[0.0] * 4, [100.0] * 4], replicates=500)
    assert (interval.low, interval.estimate, interval.high) == (50.0, 50.0, 50.0)


def test_other_statistics():
    interval = bootstrap([RUNS], lambda x: x.mean(axis=-1))
    assert interval.estimate == pytest.approx(RUNS.mean())
    assert interval.low < interval.estimate < interval.high


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


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8))
def test_interval_encloses_nothing_beyond_the_runs(runs):
    interval = bootstrap([runs], replicates=200)
    assert min(runs) - 1e-9 <= interval.low <= interval.high <= max(runs) + 1e-9


@pytest.mark.parametrize("scores", [[], [[]], [[1.0], []], [[[1.0]]]])
def test_scores_of_another_shape_are_refused(scores):
    with pytest.raises(ValueError, match="one non-empty array"):
        bootstrap(scores)


def test_comparing_other_numbers_of_tasks_is_refused():
    with pytest.raises(ValueError, match="1 tasks cannot be compared with 2"):
        probability_of_improvement([[1.0]], [[1.0], [2.0]])
