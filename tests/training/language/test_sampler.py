"""Constant class counts, shares restored by weights, whole passes, and a draw that no division of an update changes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmpo_offline.runtime.errors import UserError
from pmpo_offline.training.language.sampler import Division, StratifiedSampler, allocate


def pools(*sizes: int) -> list[np.ndarray]:
    ends = np.cumsum([0, *sizes])
    return [np.arange(start, end) for start, end in itertools.pairwise(ends)]


def sampler_of(given: list[np.ndarray], division: Division, seed: int = 0, restore: bool = True) -> StratifiedSampler:
    """Return a sampler of entries of equal lengths."""
    return StratifiedSampler(given, np.ones(sum(map(len, given)), int), division, seed, restore=restore)


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
    sampler = sampler_of(pools(*sizes), Division(8, accumulation, ranks))
    kind = np.repeat(np.arange(3), sizes)
    for step in range(5):
        drawn = sampler.draw(step)
        assert drawn.shape == (accumulation, ranks, 8)
        for micro in drawn.reshape(-1, 8):
            for each, size in enumerate(sizes):
                share = sampler.weight[kind[micro] == each].sum() / sampler.weight.sum()
                assert share == pytest.approx(size / sum(sizes), abs=1e-6)


def test_an_update_has_the_same_rows_however_it_is_divided() -> None:
    lengths = np.random.default_rng(0).integers(1, 50, 100)
    one = StratifiedSampler(pools(60, 40), lengths, Division(20), 7)
    other = StratifiedSampler(pools(60, 40), lengths, Division(5, 2, 2), 7)
    for step in range(12):
        assert sorted(one.draw(step).flatten()) == sorted(other.draw(step).flatten())


def test_each_stratum_is_passed_through_before_it_repeats_and_any_step_can_be_drawn_alone() -> None:
    sampler = sampler_of(pools(24, 12), Division(6), seed=3)
    drawn = [sampler.draw(step).flatten() for step in range(2 * len(sampler))]
    assert len(sampler) == 6
    assert sorted(np.concatenate(drawn[:6])) == list(range(36))
    assert sorted(np.concatenate(drawn[6:])) == list(range(36))
    assert not np.array_equal(drawn[0], drawn[6])
    again = sampler_of(pools(24, 12), Division(6), seed=3)
    assert np.array_equal(again.draw(9).flatten(), drawn[9])
    assert not np.array_equal(sampler_of(pools(24, 12), Division(6), seed=4).draw(0).flatten(), drawn[0])


def test_micro_batches_hold_rows_of_similar_length_and_ranks_hold_alike_ones() -> None:
    lengths = np.random.default_rng(0).integers(1, 1000, 400)
    sampler = StratifiedSampler(pools(200, 200), lengths, Division(10, 4, 2), 0)
    drawn = lengths[sampler.draw(0)]  # (4, 2, 10)
    means = drawn.mean(-1)
    assert (np.diff(means, axis=0) > 0).all()
    assert np.abs(means[:, 0] - means[:, 1]).max() < 120


def test_a_window_gathers_lengths_of_several_updates_and_loses_no_row() -> None:
    lengths = np.random.default_rng(0).integers(1, 1000, 160)
    grouped = StratifiedSampler(pools(80, 80), lengths, Division(10, window=8), 0)
    drawn = [grouped.draw(step).flatten() for step in range(16)]
    assert sorted(np.concatenate(drawn)) == list(range(160))
    loose = [StratifiedSampler(pools(80, 80), lengths, Division(10), 0).draw(step).flatten() for step in range(16)]
    assert np.mean([lengths[rows].std() for rows in drawn]) < 0.5 * np.mean([lengths[rows].std() for rows in loose])


def test_without_restoring_classes_are_equally_many_and_weigh_one() -> None:
    sampler = sampler_of(pools(90, 10), Division(8), restore=False)
    assert sampler.counts == [4, 4]
    assert (sampler.weight == 1).all()


def test_a_batch_smaller_than_the_classes_is_enlarged_and_the_weights_restore_the_shares() -> None:
    for restore in (True, False):
        sampler = sampler_of(pools(60, 30, 6), Division(1), restore=restore)
        assert sampler.counts == [1, 1, 1]
        assert sampler.weight.tolist() == pytest.approx([60 / 32, 30 / 32, 6 / 32] if restore else [1, 1, 1])
        assert len(sampler) == 96


@given(st.lists(st.integers(1, 200), min_size=1, max_size=3), st.integers(1, 16), st.integers(1, 3))
def test_an_epoch_draws_as_many_entries_as_there_are_and_the_first_pass_all(
    sizes: list[int], batch: int, accumulation: int
) -> None:
    sampler = sampler_of(pools(*sizes), Division(batch, accumulation))
    assert len(sampler) == math.ceil(sum(sizes) / (batch * accumulation))
    drawn = np.concatenate([sampler.draw(step).flatten() for step in range(sampler.first_pass)])
    assert set(drawn) == set(range(sum(sizes)))


def test_nothing_to_draw_from_is_said() -> None:
    with pytest.raises(UserError, match="nothing to learn from"):
        sampler_of(pools(0, 0), Division(8))
