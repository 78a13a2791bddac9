"""Flat tensors, indices that depend on (seed, step) alone, and every pair of a state."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.encoded import Store, observed
from hypothesis import given
from hypothesis import strategies as st

from pmpo_offline import data
from pmpo_offline.data import Candidates, Rows, columns, indices, pairs
from pmpo_offline.runtime.errors import UserError


def test_rows_hold_the_dataset_and_the_next_states(store: Store) -> None:
    dataset = store([3, 1, 4], "advantage", candidates=4)
    rows = Rows.of(dataset)
    episode, step = columns.vector(dataset.table, "episode"), columns.vector(dataset.table, "step")
    assert len(rows) == 8
    np.testing.assert_array_equal(rows.observation.numpy(), observed(episode, step))
    np.testing.assert_array_equal(rows.states[rows.next_row].numpy(), observed(episode, step + 1))
    np.testing.assert_array_equal(rows.action.numpy(), columns.matrix(dataset.table, "action"))
    np.testing.assert_array_equal(rows.label.numpy(), columns.labels(dataset.table))
    np.testing.assert_array_equal(rows.score.numpy(), columns.vector(dataset.table, "score"))
    np.testing.assert_array_equal(rows.episode.numpy(), episode)
    candidates = rows.candidates
    assert candidates is not None
    assert candidates.action.shape == (4, 4, 2)
    # The action of a candidate is (row, place): both must match.
    np.testing.assert_array_equal(candidates.action[..., 0].numpy(), candidates.state_row[:, None].expand(4, 4))
    np.testing.assert_array_equal(candidates.action[..., 1].numpy(), np.tile(np.arange(4), (4, 1)))
    np.testing.assert_array_equal(candidates.label.flatten().numpy(), columns.labels(dataset.candidates))


def test_rows_are_their_own_memory(store: Store) -> None:
    dataset = store([3, 1, 4])
    rows = Rows.of(dataset)
    rows.states.zero_()
    rows.action.zero_()
    assert columns.matrix(dataset.table, "action").any()


@given(
    st.lists(st.integers(0, 2**31), min_size=1, max_size=4),
    st.integers(0, 1000),
    st.integers(1, 9),
    st.integers(1, 10**6),
)
def test_indices_are_a_function_of_seed_and_step(seeds: list[int], step: int, batch: int, population: int) -> None:
    drawn = indices(seeds, step, batch, population)
    assert drawn.shape == (len(seeds), batch)
    assert drawn.dtype == torch.int64
    assert int(drawn.min()) >= 0
    assert int(drawn.max()) < population
    for run, seed in enumerate(seeds):  # stacked as alone
        assert drawn[run].equal(indices([seed], step, batch, population)[0])


def test_indices_do_not_depend_on_what_was_drawn_before() -> None:
    forwards = [indices([1, 2], step, 4, 100).clone() for step in range(200)]
    backwards = [indices([1, 2], step, 4, 100).clone() for step in reversed(range(200))]
    assert all(one.equal(other) for one, other in zip(forwards, reversed(backwards), strict=True))
    assert len({tuple(each.flatten().tolist()) for each in forwards}) == 200  # no step repeats another


def test_indices_are_uniform() -> None:
    drawn = torch.cat([indices([0], step, 256, 10).flatten() for step in range(400)])
    share = torch.bincount(drawn, minlength=10) / len(drawn)
    assert (share - 0.1).abs().max() < 0.005  # 102,400 draws: a standard deviation is 0.0009


def test_indices_are_those_of_every_release() -> None:
    # Datasets and results are compared across releases: the stream is part of the format.
    assert indices([0], 0, 4, 1000).tolist() == [[416, 484, 546, 340]]


def test_nothing_to_draw_from_is_refused() -> None:
    with pytest.raises(UserError, match="no rows to draw from"):
        indices([0], 0, 4, 0)


def test_every_pair_of_accept_and_reject_once() -> None:
    label = torch.tensor([[1.0, -1, 1, -1], [0, 1, 0, -1], [1, 1, 0, 0], [0, 0, 0, 0]])
    empty = torch.zeros(4, 4)
    candidates = Candidates(torch.arange(4), empty[..., None], empty, label)
    state, chosen, rejected = pairs(candidates)
    found = list(zip(state.tolist(), chosen.tolist(), rejected.tolist(), strict=True))
    assert found == [(0, 0, 1), (0, 0, 3), (0, 2, 1), (0, 2, 3), (1, 1, 3)]


def test_pairs_prefer_the_higher_score(store: Store) -> None:
    candidates = Rows.of(store([300], "advantage", candidates=4)).candidates
    assert candidates is not None
    state, chosen, rejected = pairs(candidates)
    assert len(state) == 150 * 4
    assert (candidates.score[state, chosen] > candidates.score[state, rejected]).all()


def test_one_class_has_no_pairs(store: Store) -> None:
    only_rejects = store([30], "advantage", candidates=4).relabelled(imbalance=0.0)
    candidates = data.Rows.of(only_rejects).candidates
    assert candidates is not None
    assert [len(part) for part in data.pairs(candidates)] == [0, 0, 0]
