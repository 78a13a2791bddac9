"""Minibatches with the right next observation, and labels in memory that equal those of a build."""

from __future__ import annotations

import warnings
from itertools import product

import numpy as np
import pytest
import torch
from helpers.encoded import Store, observed

from pmpo_offline import data
from pmpo_offline.data import columns
from pmpo_offline.runtime.errors import UserError

LENGTHS = [3, 1, 4, 1, 5]


@pytest.mark.parametrize("form", ["arrow", "hdf5"])
def test_a_sample_is_aligned_across_the_ends_of_episodes(store: Store, form: data.Format) -> None:
    dataset = store(LENGTHS, "advantage", format=form)
    batch = dataset.sample(4096, torch.Generator().manual_seed(0))
    episode, step = batch["episode"].numpy(), batch["step"].numpy()
    assert set(batch["row"].tolist()) == set(range(len(dataset)))  # every row was drawn
    np.testing.assert_array_equal(batch["observation"].numpy(), observed(episode, step))
    np.testing.assert_array_equal(batch["next_observation"].numpy(), observed(episode, step + 1))
    row = batch["row"].numpy()
    np.testing.assert_array_equal(batch["reward"].numpy(), columns.vector(dataset.table, "reward")[row])
    np.testing.assert_array_equal(batch["score"].numpy(), columns.vector(dataset.table, "score")[row])
    np.testing.assert_array_equal(batch["label"].numpy(), columns.labels(dataset.table)[row])
    ends = (batch["terminated"] | batch["truncated"]).numpy()
    np.testing.assert_array_equal(ends, step == np.array(LENGTHS)[episode] - 1)
    assert batch["label"].dtype == batch["reward"].dtype == torch.float32
    assert batch["terminated"].dtype == torch.bool


def test_a_sample_is_the_generators(store: Store) -> None:
    dataset = store(LENGTHS)
    first, again, other = (dataset.sample(64, torch.Generator().manual_seed(seed))["row"] for seed in (1, 1, 2))
    assert first.equal(again)
    assert not first.equal(other)


def test_rows_and_columns_are_indexed_as_hugging_faces_are(store: Store) -> None:
    dataset = store(LENGTHS, "advantage:sign:0.5")
    rows = dataset.table.to_pylist()
    assert dataset[0] == rows[0]
    assert dataset[np.int64(-1)] == rows[-1]
    assert list(dataset) == rows
    assert dataset["label"] == [row["label"] for row in rows]
    for chosen in (slice(2, 5), slice(None, None, -3), slice(3, 3)):
        assert dataset[chosen] == {name: [row[name] for row in rows[chosen]] for name in dataset.table.column_names}
    with pytest.raises(IndexError):
        dataset[len(rows)]
    with pytest.raises(UserError, match="unknown column 'lable': did you mean label"):
        dataset["lable"]
    with pytest.raises(UserError, match=r"expected an integer, a slice or a text for key, not 1\.5"):
        dataset[1.5]  # type: ignore[index]


def test_a_negative_number_of_rows_is_refused(store: Store) -> None:
    with pytest.raises(UserError, match="0 or more, not -1"):
        store(LENGTHS).sample(-1)


def test_a_batch_is_the_callers_own(store: Store) -> None:
    dataset = store(LENGTHS)
    batch = dataset.sample(8)
    before = columns.matrix(dataset.table, "observation").copy()
    for values in batch.values():
        values.zero_()
    assert (columns.matrix(dataset.table, "observation") == before).all()


@pytest.mark.parametrize(
    ("form", "label", "share"),
    [
        *product(
            ["arrow"], ["return", "success", "advantage", "return_to_go:0.5:0.1", "reward:q0.7"], [None, 0, 0.25, 1]
        ),
        ("hdf5", "return", 0.25),  # a view is of the tables, which test_forms shows to be equal in both forms
        ("hdf5", "return_to_go:0.5:0.1", None),
    ],
)
def test_a_view_equals_a_dataset_built_that_way(
    store: Store, form: data.Format, label: str, share: float | None
) -> None:
    lengths = [1 + index % 5 for index in range(60)]
    base = store(lengths, "advantage", candidates=4, id="test/base-v0", format=form)
    built = store(lengths, label, candidates=4, noise=0.1, imbalance=share, seed=3, id="test/built-v0", format=form)
    view = base.relabelled(label, share, noise=0.1, seed=3)
    assert view.table.equals(built.table)
    assert view.episodes.equals(built.episodes)
    assert view.candidates.equals(built.candidates)
    differ = {"id", "files"}
    assert view.metadata.model_dump(exclude=differ) == built.metadata.model_dump(exclude=differ)


def test_a_view_of_candidates_equals_a_build(store: Store) -> None:
    base = store([40], "q_rank:top_bottom:2", candidates=4, id="test/base-v0")
    built = store([40], "q_rank:top_bottom:1", candidates=4, imbalance=0.2, id="test/built-v0")
    view = base.relabelled("q_rank:top_bottom:1", 0.2)
    assert view.candidates.equals(built.candidates)
    assert view.metadata.counts == built.metadata.counts
    # The same actions serve a dataset of transitions, and the other way round.
    steps = store([40], "advantage", candidates=4, id="test/steps-v0")
    ranked = steps.relabelled("q_rank:top_bottom:1", 0.2)
    assert (ranked.metadata.kind, ranked.metadata.unit) == ("candidates", "response")
    assert ranked.candidates.equals(built.candidates)
    assert ranked.relabelled("reward:0", "collected").metadata.kind == "transitions"


def test_a_view_of_a_view_starts_from_the_scores(store: Store) -> None:
    lengths = [2] * 100
    base = store(lengths, "return", id="test/base-v0")
    tenth = base.relabelled(imbalance=0.1)
    assert tenth.metadata.imbalance.achieved == pytest.approx(0.1, abs=0.01)
    assert tenth.relabelled(imbalance="collected").table.equals(base.table)
    assert tenth.relabelled(noise=0.0).table.equals(tenth.table)  # other settings stay
    assert tenth.relabelled("success").metadata.imbalance.asked == 0.1


def test_loading_relabels(store: Store) -> None:
    base = store([2] * 100, "return")
    loaded = data.load_dataset("test/small-v0", imbalance=0.1, label="success", noise=0.05)
    assert loaded.table.equals(base.relabelled("success", 0.1, 0.05).table)
    assert str(loaded.metadata.label) == "success:0.5"
    assert loaded.metadata.files == base.metadata.files


def test_a_view_warns_of_its_rule_once(store: Store) -> None:
    base = store([2] * 10, "return")
    with pytest.warns(UserWarning, match="dataset test/small-v0: label 'return:99': nothing is accepted") as caught:
        view = base.relabelled("return:99")
    assert len(caught) == 1
    with warnings.catch_warnings(action="error"):
        view.relabelled(noise=0.1).relabelled(imbalance="collected").relabelled("return:99")


def test_a_view_changes_neither_the_dataset_nor_its_other_columns(store: Store) -> None:
    base = store([2] * 100, "return")
    before = base.table["label"].to_pylist()
    view = base.relabelled("success", 0.2)
    assert base.table["label"].to_pylist() == before
    ours, theirs = (columns.matrix(each.table, "observation") for each in (base, view))
    assert np.shares_memory(ours, theirs)


def test_missing_score_is_refused_with_the_build_command(store: Store) -> None:
    base = store(LENGTHS, "return")
    with pytest.raises(UserError, match="stores the score return, not advantage: build one"):
        base.relabelled("advantage:sign")
    with pytest.raises(UserError, match=r"there are none: declare \[candidates\]"):
        base.relabelled("q_rank")
    with pytest.raises(UserError, match="unknown score"):
        base.relabelled("retrun")
    with pytest.raises(UserError, match="impossible with"):
        base.relabelled(imbalance=0.001)


def test_a_share_in_words_is_refused(store: Store) -> None:
    store()
    with pytest.raises(UserError, match=r"expected a number, 'collected' or None for imbalance, not '0\.5'"):
        data.load_dataset("test/small-v0", imbalance="0.5")  # type: ignore[arg-type]


def test_a_dataset_prints_in_one_line(store: Store) -> None:
    shown = repr(store([3, 1, 4], "return"))
    assert shown == "Dataset(test/small-v0: 8 rows, label return:q0.5, 1 accepted, 2 rejected, 0 unlabelled)"
