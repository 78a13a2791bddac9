"""The accepted share: exact to one unit, nested, deterministic, and refused with the possible range."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pmpo_offline.data.labels import balance
from pmpo_offline.runtime.errors import UserError

SHARES = st.floats(0.0, 1.0, allow_subnormal=False)


def units(accepts: int, rejects: int, unlabelled: int = 0, seed: int = 0) -> np.ndarray:
    labels = np.repeat(np.array([1, -1, 0], np.int8), [accepts, rejects, unlabelled])
    return np.random.default_rng(seed).permutation(labels)


COLLECTIONS = st.builds(
    units, st.integers(0, 60), st.integers(0, 60), unlabelled=st.integers(0, 20), seed=st.integers(0, 5)
)


def test_a_tenth_by_hand() -> None:
    labels = balance(units(450, 900, 7), 0.1, seed=0)
    assert ((labels > 0).sum(), (labels < 0).sum(), (labels == 0).sum()) == (100, 900, 357)


def test_no_share_keeps_what_was_collected() -> None:
    labels = units(3, 5)
    assert (balance(labels, None, seed=0) == labels).all()


@given(COLLECTIONS, SHARES, st.integers(0, 2**32))
def test_a_balance_is_exact_to_one_unit_and_drops_of_one_class_only(
    labels: np.ndarray, share: float, seed: int
) -> None:
    before = labels.copy()
    try:
        result = balance(labels, share, seed)
    except UserError:
        assume(False)
    accepts, rejects = int((result > 0).sum()), int((result < 0).sum())
    assert (labels == before).all()
    assert ((result == labels) | (result == 0)).all()
    dropped_accepted, dropped_rejected = (labels > 0).sum() - accepts, (labels < 0).sum() - rejects
    assert not (dropped_accepted and dropped_rejected)
    # No other number of accepts (where accepts were dropped) or rejects would be nearer than half a unit.
    if dropped_accepted:
        assert abs(accepts - share / (1 - share) * rejects) <= 0.5 + 1e-9
    elif dropped_rejected:
        assert abs(rejects - (1 - share) / share * accepts) <= 0.5 + 1e-9
    assert (balance(labels, share, seed) == result).all()


@given(COLLECTIONS, SHARES, SHARES, st.integers(0, 3))
def test_shares_are_nested(labels: np.ndarray, one: float, other: float, seed: int) -> None:
    low, high = sorted((one, other))
    try:
        low_labels, high_labels = balance(labels, low, seed), balance(labels, high, seed)
    except UserError:
        assume(False)
    accepts = [set(np.flatnonzero(result > 0)) for result in (low_labels, high_labels)]
    rejects = [set(np.flatnonzero(result < 0)) for result in (low_labels, high_labels)]
    assert accepts[0] <= accepts[1]
    assert rejects[1] <= rejects[0]


@given(st.integers(0, 40), st.integers(0, 40), SHARES)
def test_suggested_shares_are_possible(accepts: int, rejects: int, share: float) -> None:
    labels = units(accepts, rejects)
    try:
        balance(labels, share, seed=0)
    except UserError as error:
        message = str(error)
    else:
        return
    assert "\n" not in message
    assert f"{accepts} accepted and {rejects} rejected" in message
    possible = {word for word, count in (("0", rejects), ("1", accepts)) if count}
    if found := re.search(r"possible are ([\d.e-]+) to ([\d.e-]+), 0 and 1", message):
        possible |= set(found.groups())
        assert not float(found[1]) < share < float(found[2])
    elif possible:
        assert f"possible is only {possible.copy().pop()}" in message
    else:
        assert "nothing is labelled" in message
    for text in possible:
        balance(labels, float(text), seed=0)


def test_only_rejects_and_only_accepts_are_legal() -> None:
    labels = units(4, 6)
    assert sorted(balance(labels, 0.0, seed=0)) == [-1] * 6 + [0] * 4
    assert sorted(balance(labels, 1.0, seed=0)) == [0] * 6 + [1] * 4


@pytest.mark.parametrize("share", [-0.01, 1.01, float("nan")])
def test_a_share_is_a_share(share: float) -> None:
    with pytest.raises(UserError, match="expected an accepted share between 0 and 1"):
        balance(units(4, 6), share, seed=0)


def test_a_share_too_small_for_the_rejects_is_refused() -> None:
    with pytest.raises(UserError, match=r"0.001 is impossible with 100 accepted and 50 rejected.*0.01961 to 0.9901"):
        balance(units(100, 50), 0.001, seed=0)


def test_a_seed_chooses_and_every_unit_has_the_same_chance() -> None:
    labels = units(40, 40)
    kept = np.array([balance(labels, 0.2, seed) > 0 for seed in range(400)])[:, labels > 0]
    assert (kept.sum(axis=1) == 10).all()
    # Each unit is kept in a quarter of 400 seeds: 100, with a standard deviation of 8.7.
    assert kept.sum(axis=0).min() > 60
    assert kept.sum(axis=0).max() < 140
