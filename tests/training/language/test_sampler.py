from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmpo_offline.runtime.errors import UserError
from pmpo_offline.training.language.strata import Strata, allocate


def pools(*sizes: int) -> list[np.ndarray]:
    ends = np.cumsum([0, *sizes])
    return [np.arange(start, end) for start, end in itertools.pairwise(ends)]


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=3), st.integers(3, 64))
def test_places_are_allocated_in_proportion_and_never_none(sizes: list[int], batch: int) -> None:
    counts = allocate(sizes, batch)
    assert sum(counts) == batch
    assert min(counts) >= 1
    crowded = any(size / sum(sizes) * batch < 1 for size in sizes)
    for size, count in zip(sizes, counts, strict=True):
        assert crowded or abs(count - size / sum(sizes) * batch) < 1


@pytest.mark.parametrize("sizes", [(50, 30, 20), (97, 2, 1), (0, 40, 0), (5, 5, 0)])
@pytest.mark.parametrize(("accumulation", "ranks"), [(1, 1), (3, 1), (2, 2)])
def test_every_micro_batch_has_the_same_classes_and_the_weights_restore_the_shares(
    sizes: tuple[int, ...], accumulation: int, ranks: int
) -> None:
    strata = Strata(pools(*sizes), 8, np.ones(sum(sizes), int), 0, accumulation=accumulation, ranks=ranks)
    kind = np.repeat(np.arange(3), sizes)
    for step in range(5):
        drawn = strata.draw(step)
        assert drawn.shape == (accumulation, ranks, 8)
        for micro in drawn.reshape(-1, 8):
            for each, size in enumerate(sizes):
                share = strata.weight[kind[micro] == each].sum() / strata.weight.sum()
                assert share == pytest.approx(size / sum(sizes), abs=1e-6)


def test_an_update_has_the_same_rows_however_it_is_divided() -> None:
    lengths = np.random.default_rng(0).integers(1, 50, 100)
    one = Strata(pools(60, 40), 20, lengths, 7)
    other = Strata(pools(60, 40), 5, lengths, 7, accumulation=2, ranks=2)
    for step in range(12):
        assert sorted(one.draw(step).flatten()) == sorted(other.draw(step).flatten())


def test_each_stratum_is_passed_through_before_it_repeats_and_any_step_can_be_drawn_alone() -> None:
    strata = Strata(pools(24, 12), 6, np.ones(36, int), 3)
    drawn = [strata.draw(step).flatten() for step in range(2 * len(strata))]
    assert len(strata) == 6
    assert sorted(np.concatenate(drawn[:6])) == list(range(36))
    assert sorted(np.concatenate(drawn[6:])) == list(range(36))
    assert not np.array_equal(drawn[0], drawn[6])
    again = Strata(pools(24, 12), 6, np.ones(36, int), 3)
    assert np.array_equal(again.draw(9).flatten(), drawn[9])
    assert not np.array_equal(Strata(pools(24, 12), 6, np.ones(36, int), 4).draw(0).flatten(), drawn[0])


def test_micro_batches_hold_rows_of_similar_length_and_ranks_hold_alike_ones() -> None:
    lengths = np.random.default_rng(0).integers(1, 1000, 400)
    strata = Strata(pools(200, 200), 10, lengths, 0, accumulation=4, ranks=2)
    drawn = lengths[strata.draw(0)]  # (4, 2, 10)
    means = drawn.mean(-1)
    assert (np.diff(means, axis=0) > 0).all()
    assert np.abs(means[:, 0] - means[:, 1]).max() < 120


def test_a_window_gathers_lengths_of_several_updates_and_loses_no_row() -> None:
    lengths = np.random.default_rng(0).integers(1, 1000, 160)
    grouped = Strata(pools(80, 80), 10, lengths, 0, window=8)
    drawn = [grouped.draw(step).flatten() for step in range(16)]
    assert sorted(np.concatenate(drawn)) == list(range(160))
    loose = [Strata(pools(80, 80), 10, lengths, 0).draw(step).flatten() for step in range(16)]
    assert np.mean([lengths[rows].std() for rows in drawn]) < 0.5 * np.mean([lengths[rows].std() for rows in loose])


def test_without_restoring_classes_are_equally_many_and_weigh_one() -> None:
    strata = Strata(pools(90, 10), 8, np.ones(100, int), 0, restore=False)
    assert strata.counts == [4, 4]
    assert (strata.weight == 1).all()


def test_nothing_to_draw_from_and_a_batch_without_room_are_said() -> None:
    with pytest.raises(UserError, match="nothing to learn from"):
        Strata(pools(0, 0), 8, np.ones(0, int), 0)
    with pytest.raises(UserError, match="no room for all 3 classes"):
        Strata(pools(5, 5, 5), 2, np.ones(15, int), 0)
