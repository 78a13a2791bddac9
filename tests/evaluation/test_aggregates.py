import numpy as np
import pytest

from pmpo_offline.evaluation.statistics import (
    STATISTICS,
    mean_ranks,
    optimality_gap,
    performance_profile,
    rank_distribution,
)


def test_performance_profile_by_hand():
    # Above 0 are both runs of the first task and one of two of the second; at a threshold itself a run is not above it.
    profile = performance_profile([np.array([10.0, 50.0]), np.array([0.0, 90.0])], [0.0, 10.0, 89.0, 90.0])
    assert profile.tolist() == [0.75, 0.5, 0.25, 0.0]


def test_optimality_gap_counts_nothing_above_the_expert():
    assert float(optimality_gap(np.array([100.0, 140.0, 40.0]))) == 20.0
    assert optimality_gap(np.array([[100.0, 0.0], [50.0, 50.0]])).tolist() == [50.0, 50.0]


def test_statistics_reduce_the_last_axis():
    scores = np.array([[0.0, 10.0, 20.0, 70.0], [1.0, 1.0, 1.0, 1.0]])
    found = {name: function(scores).tolist() for name, function in STATISTICS.items()}
    assert found == {"IQM": [15.0, 1.0], "mean": [25.0, 1.0], "median": [15.0, 1.0], "optimality gap": [75.0, 99.0]}


def test_ranks_of_methods_that_never_overlap_are_certain():
    worse, better = [np.array([1.0, 2.0]), np.array([0.0, 1.0])], [np.array([5.0, 6.0]), np.array([7.0, 8.0])]
    assert rank_distribution([worse, better], 100).tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert mean_ranks([worse, better]).tolist() == [2.0, 1.0]


def test_ranks_by_hand_where_runs_overlap():
    # The mean of two draws from {0, 4} is 0, 2, 2 or 4: it beats the other method's 3 in a quarter of the draws.
    probability = rank_distribution([[np.array([0.0, 4.0])], [np.array([3.0, 3.0])]], 40_000)
    assert probability == pytest.approx(np.array([[0.25, 0.75], [0.75, 0.25]]), abs=0.01)


def test_ties_share_ranks_and_every_rank_is_given_once():
    equal = [[np.array([1.0, 1.0])], [np.array([1.0, 1.0])], [np.array([1.0, 1.0])]]
    probability = rank_distribution(equal, 20_000)
    assert probability == pytest.approx(np.full((3, 3), 1 / 3), abs=0.02)
    assert probability.sum(axis=0) == pytest.approx(1)
    assert probability.sum(axis=1) == pytest.approx(1)
    assert mean_ranks(equal).tolist() == [2.0, 2.0, 2.0]


def test_methods_on_different_tasks_are_not_ranked():
    with pytest.raises(ValueError, match="same tasks"):
        rank_distribution([[np.array([1.0])], []], 1)
