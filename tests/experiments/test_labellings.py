"""Runs with labels of their own: trained as the package trains them, labelled as they say."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from benchmarks.experiments import labellings
from benchmarks.experiments.arms import Arm, ranked, stacks
from benchmarks.experiments.labellings import Labelled, Run, imbalanced, resumable
from pmpo_offline.build import build_dataset
from pmpo_offline.data import columns
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.training import train

TRUTH = np.repeat(np.array([1, -1], np.int8), 500)
CLEAN = {"share": None, "kind": "labels", "coverage": 1.0, "flips": 0.0}


@pytest.fixture(scope="module")
def bandit(tmp_path_factory):
    return build_dataset("bandit/sphere-v0", home=tmp_path_factory.mktemp("home"))


def labels_of(dataset) -> torch.Tensor:
    return torch.tensor(np.array(columns.labels(dataset.table))).float()


@pytest.mark.parametrize("name", ["pmpo", "bc-accepted", "bc-unrejected", "kto"])
def test_a_stack_of_labellings_trains_what_the_package_trains(bandit, name):
    view = bandit.relabelled(imbalance=0.25, noise=0.1, seed=3)
    arm, label = Arm(name).declared("bandit"), labels_of(view)
    short = {"updates": 12}
    ours = train(view, name, seeds=[5, 6], settings=[{"beta": 0.9} if name in ("pmpo", "kto") else {}], overrides=short)
    settings = {"beta": 0.9} if name in ("pmpo", "kto") else {}
    runs = [Run(Labelled(label), seed, settings) for seed in (5, 6)]
    other = Run(Labelled(-label), 7, settings)  # does not disturb its neighbours
    clone = None
    if arm.start == "reference":
        every = [Run(Labelled(label), seed) for seed in (5, 6, 7)]
        clone = labellings.train(bandit, Arm("bc").declared("bandit"), every, **short)
    theirs = labellings.train(bandit, arm, [*runs, other], clone, **short)
    for mine, stacked in zip(ours.policy.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(stacked[:2], mine, rtol=1e-4, atol=1e-5)


def test_a_share_is_reached_by_dropping_labels_or_rows():
    by_labels = imbalanced(TRUTH, None, 0, **CLEAN | {"share": 0.1})
    by_rows = imbalanced(TRUTH, None, 0, **CLEAN | {"share": 0.1, "kind": "rows"})
    for found in (by_labels, by_rows):
        assert (len(found.rows([1])), len(found.rows([-1]))) == (56, 500)
    assert len(by_labels.rows([0])) == 444
    assert len(by_rows.rows([0])) == 0
    assert by_labels.masses["reject_mass"] == 0.5
    assert by_rows.masses["reject_mass"] == pytest.approx(500 / 556)
    assert by_labels.masses["reject_share"] == by_rows.masses["reject_share"] == pytest.approx(500 / 556)


def test_smaller_coverage_keeps_a_subset_and_flips_are_nested():
    few, many = (imbalanced(TRUTH, None, 4, **CLEAN | {"coverage": c}).label for c in (0.1, 0.5))
    assert ((few != 0) & (many == 0)).sum() == 0
    assert 0.4 < float((many != 0).float().mean()) < 0.6
    low, high = (imbalanced(TRUTH, None, 4, **CLEAN | {"flips": f}).label for f in (0.1, 0.3))
    truth = torch.from_numpy(TRUTH).float()
    assert ((low != truth) & (high == truth)).sum() == 0


def test_labels_of_episodes_are_those_of_their_rows():
    found = imbalanced(np.array([1, -1, 1], np.int8), np.array([2, 3, 1], np.int8), 0, **CLEAN)
    assert found.label.tolist() == [1, 1, -1, -1, -1, 1]
    assert found.masses == {"reject_mass": 0.5, "reject_share": 0.5}


def test_a_multiple_is_that_of_the_package_and_the_derived_weight_is_measured(bandit):
    from pmpo_offline.training.config import Setup

    view = bandit.relabelled(imbalance=0.25)
    known = labels_of(view)
    labelled = Labelled(known, None, view.metadata.reject_mass)
    for settings in ({}, {"normalize": "set"}, {"normalize": "set", "reject_mass": "dataset"}, {"alpha": 0.8}):
        run = Arm("pmpo").run("bandit", labelled, 0, {"multiple": 1.2, **settings})
        declared = Setup(Arm("pmpo").declared("bandit"), {"beta": "1.2x", **settings}, view).settled().settings
        assert run.settings["beta"] == pytest.approx(declared["beta"])
        assert run.settings.get("reject_mass", 1.0) == pytest.approx(declared["reject_mass"])


def test_unlabelled_rows_may_be_taken_for_good():
    run = Arm("kto", unlabelled_is_good=True).run("bandit", Labelled(torch.tensor([1.0, 0.0, -1.0])), 0, {"beta": 1.0})
    assert run.labelled.label.tolist() == [1, 1, -1]


def test_settings_stack_if_only_numbers_differ():
    grid = [{"beta": 1.0, "rate": 0.1}, {"beta": 2.0, "rate": 0.1}, {"beta": 1.0, "rate": 0.2}, {"normalize": "set"}]
    assert list(stacks(grid)) == [grid[:2], grid[2:3], grid[3:]]


def test_settings_are_ranked_by_their_mean():
    raw = pl.DataFrame({"arm": ["a"] * 4, "setting": ['{"b": 1}', '{"b": 2}'] * 2, "score": [1.0, 3.0, 2.0, 1.0]})
    assert ranked(raw, "score") == {"a": [{"setting": {"b": 2}, "score": 2.0}, {"setting": {"b": 1}, "score": 1.5}]}


def test_finished_chunks_are_not_made_again(tmp_path):
    made = []

    def make(number: int) -> pl.DataFrame:
        made.append(number)
        return pl.DataFrame({"number": [number]})

    resumable(tmp_path, [{"number": 1}], make)
    found = resumable(tmp_path, [{"number": 1}, {"number": 2}], make)
    assert made == [1, 2]
    assert found["number"].to_list() == [1, 2]


def test_a_wrong_setting_is_an_error_and_not_a_divergence(bandit):
    with pytest.raises(UserError, match="setting"):
        labellings.train(bandit, Arm("bc").declared("bandit"), [Run(Labelled(labels_of(bandit)), 0, {"beta": 1.0})])
