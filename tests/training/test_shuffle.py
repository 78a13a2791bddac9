"""The control: labels that say nothing, neither which one a unit has nor that it has one."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch

from pmpo_offline.data import Dataset, Rows
from pmpo_offline.declarations import catalog
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.training import train
from pmpo_offline.training.config import Setup
from pmpo_offline.training.shuffle import check_control, expected, identified, shuffled


@pytest.mark.parametrize("label", ["success", "return_to_go:q0.5"])
@pytest.mark.parametrize("imbalance", [None, 0.3])
def test_shuffled_labels(stacking: Dataset, label: str, imbalance: float | None) -> None:
    dataset = stacking.relabelled(label, imbalance=imbalance)
    rows, unit = Rows.of(dataset), dataset.metadata.unit
    assert unit == ("episode" if label == "success" else "step")
    views = [shuffled(rows, unit, seed) for seed in (0, 1, 2, 0)]
    first = torch.tensor(dataset.episodes.column("start").to_numpy()) if dataset.episodes is not None else None
    for view in views:
        units = (view.label[first], rows.label[first]) if unit == "episode" else (view.label, rows.label)
        assert sorted(units[0].tolist()) == sorted(units[1].tolist()), "as many accepts and rejects as before"
        if not units[1].all():
            assert not (units[0] == 0).equal(units[1] == 0), "having a label carries nothing either"
        if unit == "episode":
            assert view.label.equal(view.label[first][view.episode]), "an episode has one label"
        assert not view.label.equal(rows.label)
        assert view.candidates is not None
        assert rows.candidates is not None
        assert sorted(view.candidates.label.flatten()) == sorted(rows.candidates.label.flatten())
        assert not view.candidates.label.equal(rows.candidates.label)
    assert views[0].label.equal(views[3].label), "a function of the seed"
    assert not views[0].label.equal(views[1].label)
    assert not views[1].label.equal(views[2].label)


def test_a_label_says_nothing_once_it_was_shuffled(stacking: Dataset) -> None:
    rows = Rows.of(stacking.relabelled("return_to_go:q0.5", imbalance=0.1))
    good = Rows.of(stacking.relabelled("return_to_go:q0.5")).label > 0  # of which most lost their label
    assert (rows.label[good] != 0).float().mean() < 0.2 < 1 == (rows.label[~good] != 0).float().mean()
    labelled = torch.stack([shuffled(rows, "step", seed).label != 0 for seed in range(200)]).float().mean(0)
    assert abs(labelled[good].mean() - labelled[~good].mean()) < 0.01


@pytest.mark.parametrize("label", ["success", "return_to_go:q0.5"])
def test_where_all_have_labels_the_draws_are_those_of_before(stacking: Dataset, label: str) -> None:
    dataset = stacking.relabelled(label)
    rows, unit = Rows.of(dataset), dataset.metadata.unit
    first = np.unique(rows.episode.numpy(), return_index=True)[1] if unit == "episode" else np.arange(len(rows))
    assert rows.candidates is not None
    assert rows.label.all()
    assert rows.candidates.label.all()
    rng, view = np.random.default_rng([3, 7]), shuffled(rows, unit, 3)
    for before, after in [
        (rows.label[first], view.label[first]),
        (rows.candidates.label.flatten(), view.candidates.label.flatten()),  # type: ignore[union-attr]
    ]:
        among = before.nonzero().squeeze(1)  # results of before the unlabelled took part rest on this
        assert after[among].equal(before[among[rng.permutation(len(among))]])


def test_bounds_are_those_of_the_permuted_labels(stacking: Dataset) -> None:
    dataset = stacking.relabelled("success", imbalance=0.3)
    rows, control = Rows.of(dataset), expected(dataset).metadata
    drawn = torch.stack([shuffled(rows, "episode", seed).label for seed in range(400)])
    assert control.labelled_reject_mass == pytest.approx(float((drawn < 0).float().mean()), rel=0.03)
    assert abs(control.labelled_reject_mass / dataset.metadata.labelled_reject_mass - 1) > 0.03, "failures last longer"
    share = float((drawn < 0).sum() / (drawn != 0).sum())
    assert control.reject_share == pytest.approx(share, rel=0.03)
    counts = dataset.metadata.counts
    overrides = {"updates": 2, "batch": 64, "hidden": [8]}  # large enough that no minibatch lacks a class
    trained = train(dataset, "pmpo", overrides=overrides, shuffle_labels=True, device="cpu")
    bound = 0.5 * counts.episodes / (counts.accepted + counts.rejected)  # (1 - α) w_r / P_r, counted in episodes
    assert trained.bounds == [pytest.approx(bound)]
    assert trained.runs[0][0]["beta"] == pytest.approx(1.05 * bound)
    steps = stacking.relabelled("return_to_go:q0.5", imbalance=0.3)
    assert expected(steps) is steps, "a step is a step wherever its label goes"


def test_without_contexts_the_bound_counts_the_rejects_before_balancing_in_episodes_too(stacking: Dataset) -> None:
    blind = replace(stacking, table=stacking.table.drop_columns("observation"))
    observation = stacking.table.column("observation")
    still = pa.concat_arrays([observation.chunk(0)[:1]] * len(stacking))
    blind = replace(blind, table=blind.table.append_column(stacking.table.schema.field("observation"), still))
    dataset = blind.relabelled("success", imbalance=0.9)  # rejects lose their labels
    counts, dropped = dataset.metadata.counts, dataset.metadata.imbalance.dropped_rejected
    assert dropped > 0
    algorithm = catalog.algorithm("pmpo", "rgb-stacking")
    settings = Setup(algorithm, {"beta": 1.0}, dataset).settled().settings
    w_r, p_r = counts.rejected / (counts.accepted + counts.rejected), (counts.rejected + dropped) / counts.episodes
    assert Setup(algorithm, settings, expected(dataset)).bound == pytest.approx(0.5 * w_r / p_r)


def test_keys_tell_this_control_from_the_one_of_before() -> None:
    def counts(accepted: int, rejected: int, unlabelled: int) -> SimpleNamespace:
        return SimpleNamespace(accepted=accepted, rejected=rejected, unlabelled=unlabelled)

    whole, cut, tie = counts(900, 1100, 0), counts(118, 1059, 823), counts(101_634, 98_365, 1)
    for said, among in ((whole, True), (cut, "all units"), (tie, True)):
        assert identified(SimpleNamespace(counts=said, candidates=None), "all") == among  # type: ignore[arg-type]
    pairs = SimpleNamespace(counts=whole, candidates=cut)
    assert identified(pairs, "pairs") == "all units"  # type: ignore[arg-type]
    assert identified(pairs, "all") is True  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "rows", "why"),
    [("bc", "all", "no labels"), ("mpo", "candidates", "no labels"), ("awr", "accepted", "more than labels")],
)
def test_what_learns_from_more_than_labels_is_no_control(stacking: Dataset, name: str, rows: str, why: str) -> None:
    algorithm = catalog.algorithm(name, "rgb-stacking").model_copy(update={"rows": rows})
    with pytest.raises(UserError, match=f"{name} uses {why}, so that shuffling"):
        train(stacking, algorithm, shuffle_labels=True, device="cpu")


@pytest.mark.parametrize(
    ("objective", "rows", "elsewhere", "on_responses"),
    [
        ("pmpo", "all", True, True),
        ("bc", "accepted", True, True),
        ("dpo", "pairs", True, True),
        ("bc", "all", False, False),
        ("mpo", "candidates", False, True),
        ("bc", "top", False, True),
        ("awr", "all", False, True),
        ("kto", "top", False, True),  # which rows are the best is known whatever their labels say
    ],
)
def test_a_control_permutes_all_the_feedback_that_is_learned_from(
    objective: str, rows: str, elsewhere: bool, on_responses: bool
) -> None:
    """Of responses labels and scores are permuted, elsewhere labels alone."""
    algorithm = catalog.algorithm("pmpo", "language").model_copy(update={"objective": objective, "rows": rows})
    for responses, allowed in ((False, elsewhere), (True, on_responses)):
        with nullcontext() if allowed else pytest.raises(UserError, match="is no control"):
            check_control(algorithm, responses=responses)
