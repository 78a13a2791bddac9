"""Tolerance beside dm_control's own."""

from __future__ import annotations

import numpy as np
from dm_control.utils import rewards
from hypothesis import given
from hypothesis import strategies as st

from pmpo_offline.tasks.control.dm_suite import Slope, tolerance

NUMBERS = st.floats(-20, 20)


@given(
    x=st.lists(NUMBERS, min_size=1, max_size=5),
    ends=st.tuples(NUMBERS, st.one_of(NUMBERS, st.just(np.inf))),
    margin=st.floats(0.01, 10) | st.just(0.0),
    slope=st.sampled_from(["gaussian", "linear", "quadratic"]),
    at_margin=st.floats(0.01, 0.99),
)
def test_equals_dm_control(
    x: list[float], ends: tuple[float, float], margin: float, slope: Slope, at_margin: float
) -> None:
    low, high = sorted(ends)
    ours = tolerance(np.array(x), (low, high), margin, slope, at_margin)
    theirs = rewards.tolerance(np.array(x), (low, high), margin, slope, at_margin)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-13)


def test_by_hand() -> None:
    x = np.array([0.0, 5.0, 10.0, 15.0])
    np.testing.assert_allclose(tolerance(x, (10, np.inf), margin=10, slope="linear", at_margin=0), [0, 0.5, 1, 1])
    np.testing.assert_allclose(tolerance(x, (5, 5), margin=5), [0.1, 1, 0.1, 0.1**4])
    np.testing.assert_array_equal(tolerance(x, (5, 10)), [0, 1, 1, 0])
