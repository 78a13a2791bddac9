"""What the doctor says is what the objectives' theory and the trainer do."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from pmpo_offline.build import build_dataset
from pmpo_offline.data import Dataset, Rows, columns, pairs
from pmpo_offline.declarations import OBJECTIVES, catalog
from pmpo_offline.objectives import declaration, declare, stability
from pmpo_offline.objectives.objective import Loss
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.tasks.language.tiny import tokenizer
from pmpo_offline.training import states, train
from pmpo_offline.training.doctor import Diagnosis, doctor
from pmpo_offline.training.language.trl_data import dataset_of

PMPO = catalog.algorithm("pmpo", "rgb-stacking")


def with_labels(dataset: Dataset, label: columns.Labels) -> Dataset:
    """Return the dataset with other labels of its rows, which count as collected."""
    rows, rejected, labelled = len(label), int((label < 0).sum()), int((label != 0).sum())
    counts = {"accepted": labelled - rejected, "rejected": rejected, "unlabelled": rows - labelled}
    changed = {
        "unit": "step",
        "counts": dataset.metadata.counts.model_copy(update=counts),
        "reject_mass": rejected / rows,
        "labelled_reject_mass": rejected / rows,
        "reject_share": rejected / labelled,
    }
    metadata = dataset.metadata.model_copy(update=changed)
    return replace(dataset, metadata=metadata, table=columns.replace(dataset.table, label=label))


def indistinct(dataset: Dataset) -> Dataset:
    """Return the dataset with observations that say nothing of the labels."""
    noise = np.random.default_rng(0).normal(size=(len(dataset), 2)).astype(np.float32)
    place = dataset.table.schema.get_field_index("observation")
    return replace(dataset, table=dataset.table.set_column(place, "observation", columns.list_array(noise)))


@pytest.fixture(autouse=True)
def quick_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels are predicted from states by a classifier of few updates; how well it does is tested in test_states.py."""
    monkeypatch.setattr(states, "_UPDATES", 80)


@pytest.fixture(scope="module")
def bandit(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A few episodes of a declared bandit: one observation throughout, four candidates a state."""
    return build_dataset("bandit/sphere-v0", episodes=300, home=tmp_path_factory.mktemp("home"), workers=1)


@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_bounds_of_a_dataset_by_hand(stacking: Dataset, share: float, alpha: float) -> None:
    data = stacking.relabelled(imbalance=share)
    label = columns.labels(data.table)
    rejected, labelled = (label < 0).sum(), (label != 0).sum()
    found = doctor(data, PMPO, {"alpha": alpha, "beta": 1.0})
    assert (found.accepted, found.rejected) == ((label > 0).sum(), rejected)
    assert found.accepted_share == pytest.approx(1 - rejected / labelled)
    # (1 - alpha) w_r / P_r, with w_r = 1 for "set".
    assert found.bounds["set"] == pytest.approx((1 - alpha) * len(data) / rejected)
    assert found.bounds["joint"] == pytest.approx((1 - alpha) * len(data) / labelled)
    assert found.bound == found.bounds["joint"]
    assert found.collapse <= found.collapse_by_state <= found.bound
    assert found.suggested_beta == pytest.approx((found.collapse_by_state + 1.05 * found.bounds["joint"]) / 2)
    assert found.factor == pytest.approx(1 / found.bounds["joint"])
    assert found.labelled_reject_mass == pytest.approx(rejected / len(data))
    assert found.gaussian_bound is None


@pytest.mark.parametrize(
    ("beta", "verdict"),
    [("0.2x", "collapse"), ("0.9x", "collapse"), ("1x", "at the edge"), ("1.05x", "bounded"), ("2x", "bounded")],
)
@pytest.mark.parametrize("normalize", ["joint", "set"])
def test_verdict_on_both_sides_of_the_bound(stacking: Dataset, beta: str, verdict: str, normalize: str) -> None:
    found = doctor(stacking, PMPO, {"beta": beta, "normalize": normalize})
    assert found.verdict == verdict
    assert found.factor == pytest.approx(float(beta[:-1]))
    assert found.bound == found.bounds[normalize]
    assert found.settings["beta"] == pytest.approx(float(beta[:-1]) * found.bounds[normalize])


def test_the_trainer_warns_where_the_doctor_does(stacking: Dataset) -> None:
    quick = {"updates": 1, "batch": 8, "hidden": [4], "components": 1}
    for beta, warned in (("0.9x", True), ("1.1x", False)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            done = train(stacking, "pmpo", settings=[{"beta": beta}], overrides=quick, device="cpu")
        found = doctor(stacking, PMPO, {"beta": beta})
        assert bool(caught) is warned is (found.verdict in ("no minimum", "collapse"))
        assert done.bounds == [found.bound]
        assert done.runs[0][0] == found.settings


def test_where_every_beta_is_bounded(stacking: Dataset) -> None:
    for settings in ({"alpha": 1.0}, {"floor": 0.01}):
        found = doctor(stacking, PMPO, {"beta": 0.0, **settings})
        assert (found.verdict, found.bound, found.factor, found.suggested_beta) == ("bounded", 0, None, None)
        assert any("every β is bounded" in note for note in found.notes)


@pytest.mark.parametrize("beta", [5.0, "1.05x"])
def test_where_no_beta_is_bounded(stacking: Dataset, beta: float | str) -> None:
    found = doctor(stacking, PMPO, {"divergence": "reverse", "beta": beta})
    assert found.verdict == "unbounded"
    assert (found.bound, found.factor, found.suggested_beta) == (math.inf, None, None)
    assert "no β bounds the loss: the reverse divergence does not hold rejects back" in found.notes


def test_derived_weight_scales_the_bound(stacking: Dataset) -> None:
    paper = {"normalize": "set", "reject_mass": "dataset", "beta": 1.0}
    found = doctor(stacking, PMPO, paper)
    # beta is divided by P_r: the bound of "set", (1 - alpha) / P_r, becomes 1 - alpha.
    assert found.bound == pytest.approx(0.5)
    assert found.settings["reject_mass"] == stacking.metadata.labelled_reject_mass


@pytest.mark.parametrize(("share", "algorithm"), [(0.0, "kto"), (1.0, "kto"), (0.0, "bc-accepted"), (1.0, "bco")])
def test_one_class_that_an_algorithm_cannot_do_with(stacking: Dataset, share: float, algorithm: str) -> None:
    data = stacking.relabelled(imbalance=share)
    found = doctor(data, catalog.algorithm(algorithm, "rgb-stacking"))
    assert found.verdict == "cannot learn"
    assert "there are no" in found.notes[0]
    with pytest.raises(UserError, match="the labels leave this algorithm nothing to learn from"):
        train(data, algorithm, overrides={"updates": 1, "hidden": [4], "components": 1}, device="cpu")


def test_one_class_that_pmpo_can_do_with(stacking: Dataset) -> None:
    rejects = doctor(stacking.relabelled(imbalance=0.0), PMPO)
    assert rejects.verdict == "bounded"
    assert rejects.accepted_share == 0
    assert rejects.notes[0].startswith("rejects only: ")
    assert "without accepts α only scales the rejects" in rejects.notes
    accepts = doctor(stacking.relabelled(imbalance=1.0), PMPO, {"beta": 0.3})
    assert (accepts.verdict, accepts.bound, accepts.accepted_share) == ("bounded", 0, 1)
    assert accepts.notes[0].startswith("accepts only: ")


def test_labels_that_only_candidates_carry(stacking: Dataset) -> None:
    ranked = stacking.relabelled("q_rank:top_bottom:1")
    found = doctor(ranked, PMPO, {"beta": 1.0})
    assert found.verdict == "cannot learn"
    assert found.notes[0].startswith("no row is labelled")
    assert (found.bound, found.factor, found.suggested_beta, found.bounds) == (None, None, None, {})
    pairs_of = doctor(ranked, catalog.algorithm("dpo", "rgb-stacking"))
    assert pairs_of.verdict == "ready"
    counted = ranked.metadata.candidates
    assert counted is not None
    assert (pairs_of.reject_mass, pairs_of.reject_share) == (counted.reject_mass, counted.reject_share) == (0.25, 0.5)


def test_an_objective_may_call_its_label_otherwise(stacking: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an objective reads is known by the vocabulary, not by the names of its loss's parameters."""

    @declare(renamed={"sign": "label"})
    def signed(logp: torch.Tensor, sign: torch.Tensor) -> Loss:
        """Raise accepts and lower rejects."""
        return -(sign * logp).mean(-1), {}

    monkeypatch.setattr(OBJECTIVES, "_own", {**OBJECTIVES, "signed": declaration(signed)})
    monkeypatch.setattr(OBJECTIVES, "_loaded", {})
    algorithm = PMPO.model_copy(update={"name": "signed", "objective": "signed", "settings": {}})
    label = np.zeros(len(stacking), np.int8)
    label[0] = 1
    accepts_only = with_labels(stacking, label)
    (note,) = doctor(accepts_only, algorithm).notes
    assert note.startswith("accepts only")
    unlabelled = replace(accepts_only, table=columns.replace(accepts_only.table, label=0 * label))
    assert doctor(unlabelled, algorithm).verdict == "cannot learn"
    with pytest.raises(ValueError, match="label is -1"):
        signed(torch.zeros(2), torch.tensor([0.5, 1.0]))


def test_pairs_are_those_that_are_trained_on(stacking: Dataset) -> None:
    candidates = Rows.of(stacking).candidates
    assert candidates is not None
    found = doctor(stacking, catalog.algorithm("dpo", "rgb-stacking"))
    assert found.pairs == len(pairs(candidates)[0]) > 0
    assert (found.accepted, found.rejected) == ((candidates.label > 0).sum(), (candidates.label < 0).sum())
    assert found.bound is found.gaussian_bound is None

    alone = doctor(stacking.relabelled(imbalance=0.0), catalog.algorithm("nca", "rgb-stacking"))
    assert (alone.pairs, alone.verdict) == (0, "cannot learn")
    assert "without pairs there is no gradient" in alone.notes[0]


@pytest.mark.parametrize("algorithm", ["mpo", "dpo"])
def test_candidates_that_are_missing(bandit: Dataset, algorithm: str) -> None:
    without = Dataset(bandit.metadata, bandit.path, bandit.table, bandit.episodes)
    found = doctor(without, catalog.algorithm(algorithm, "bandit"))
    assert found.verdict == "cannot learn"
    assert "learns from scored candidate actions and the dataset has none: declare [candidates] in" in found.notes[0]
    assert doctor(bandit, catalog.algorithm(algorithm, "bandit")).verdict == "ready"


def test_advantages_that_are_missing(stacking: Dataset) -> None:
    found = doctor(stacking, catalog.algorithm("awr", "rgb-stacking"))
    assert found.verdict == "cannot learn"
    assert found.notes[0] == "it needs advantages and the dataset is scored by success: --label advantage"


def test_advised_class_weights_of_kto(stacking: Dataset) -> None:
    data = stacking.relabelled(imbalance=0.25)
    found = doctor(data, catalog.algorithm("kto", "rgb-stacking"), {"desirable_weight": 1.2})
    assert found.weight_ratio == pytest.approx(1.2)
    assert found.weight_range == pytest.approx((1, 4 / 3))  # balanced minibatches
    ratio = found.rejected / found.accepted
    assert f"{ratio:.3g} to {4 / 3 * ratio:.3g}" in found.notes[-1]
    as_they_come = catalog.algorithm("kto", "rgb-stacking").model_copy(update={"rows": "all"})
    lopsided = doctor(data, as_they_come, {"undesirable_weight": 0.0})
    assert lopsided.weight_range == pytest.approx((ratio, 4 / 3 * ratio))
    assert lopsided.weight_ratio == math.inf
    assert not any("on rows as they come instead" in note for note in lopsided.notes)  # these are


def test_a_constant_observation_has_the_gaussians_bound_too(bandit: Dataset) -> None:
    action, label = columns.matrix(bandit.table, "action"), columns.labels(bandit.table)
    accepted, rejected, every = (torch.tensor(part) for part in (action[label > 0], action[label < 0], action))
    for alpha in (0.0, 0.5):
        found = doctor(bandit, catalog.algorithm("pmpo", "bandit"), {"alpha": alpha, "beta": "1.05x"})
        bound = stability.gaussian_beta_min(accepted, rejected, every, alpha=alpha, normalize="joint")
        assert found.gaussian_bound == pytest.approx(bound)
        assert any(f"one diagonal Gaussian needs β > {bound:.4g} and is bounded here" in note for note in found.notes)
        below = doctor(bandit, catalog.algorithm("pmpo", "bandit"), {"alpha": alpha, "beta": 0.9 * bound})
        assert any("and is unbounded here" in note for note in below.notes)
        scaled = {"alpha": alpha, "beta": "1.05x", "reject_mass": 0.4}
        assert doctor(bandit, catalog.algorithm("pmpo", "bandit"), scaled).gaussian_bound == pytest.approx(0.4 * bound)


def test_the_gaussians_bound_runs_over_the_rows_of_the_divergence(bandit: Dataset) -> None:
    sparse = bandit.relabelled("return:q0.5:0.2")
    action, label = columns.matrix(sparse.table, "action"), columns.labels(sparse.table)
    assert (label == 0).any()
    accepted, rejected = (torch.tensor(action[label == sign]) for sign in (1, -1))
    found = doctor(sparse, catalog.algorithm("pmpo", "bandit"), {"over": "labelled", "beta": 1.0})
    bound = stability.gaussian_beta_min(
        accepted, rejected, torch.cat([accepted, rejected]), alpha=0.5, normalize="joint"
    )
    assert found.gaussian_bound == pytest.approx(bound)
    every = doctor(sparse, catalog.algorithm("pmpo", "bandit"), {"beta": 1.0}).gaussian_bound
    assert every != pytest.approx(bound)


def test_flipped_labels_relax_the_bound_of_a_policy_without_contexts(bandit: Dataset, stacking: Dataset) -> None:
    algorithm = catalog.algorithm("pmpo", "bandit")
    for share in (None, 0.2):
        noisy = bandit.relabelled(noise=0.2, imbalance=share)
        label, meta = columns.labels(noisy.table), noisy.metadata
        accepts = ((label > 0).sum() + meta.imbalance.dropped_accepted) / len(noisy)
        # set: (1 - alpha) (1 - e) / P_r - alpha e / P_a
        by_hand = 0.5 * 0.8 / meta.reject_mass - 0.5 * 0.2 / accepts
        found = doctor(noisy, algorithm, {"normalize": "set"})
        assert found.noise_bound == pytest.approx(by_hand)
        assert found.noise_bound < found.bounds["set"]
        assert any(f"β ≥ {by_hand:.4g} is enough" in note for note in found.notes)
    assert doctor(bandit, algorithm).noise_bound is None, "no label was flipped"
    assert doctor(stacking.relabelled(noise=0.2), PMPO).noise_bound is None, "single rows can be told apart"


def test_the_edge_and_what_a_reject_still_weighs(stacking: Dataset) -> None:
    assert doctor(stacking, PMPO, {"beta": "1.03x"}).verdict == "bounded"
    assert doctor(stacking, PMPO, {"beta": "0.97x"}).verdict == "collapse", "the states tell all labels"
    assert doctor(stacking, PMPO, {"beta": "0.99x"}).verdict == "at the edge"
    assert any("a reject still weighs 0.50 of" in note for note in doctor(stacking, PMPO, {"beta": "2x"}).notes)
    assert not any("still weighs" in note for note in doctor(stacking, PMPO, {"beta": "1.2x"}).notes)


def test_below_the_bound_the_collapse_threshold_decides(stacking: Dataset) -> None:
    collapse = doctor(stacking, PMPO).collapse
    assert collapse == pytest.approx(stacking.metadata.reject_share - 0.5)  # (1 - alpha) w_r - alpha w_a
    above, below = (doctor(stacking, PMPO, {"beta": collapse + step}) for step in (1e-3, -1e-3))
    assert (above.verdict, below.verdict) == ("collapse", "collapse"), "where states are seen theirs decides"
    by_state = doctor(noise := indistinct(stacking), PMPO).collapse_by_state
    assert collapse < by_state < 0.5 * (collapse + doctor(noise, PMPO).bound)
    verdicts = [doctor(noise, PMPO, {"beta": by_state + step}).verdict for step in (1e-3, -1e-3)]
    assert verdicts == ["no minimum", "collapse"]
    assert any("a policy over a few outcomes still settles on several accepted ones" in note for note in above.notes)
    assert any("a policy over a few outcomes collapses onto one of them" in note for note in below.notes)
    assert doctor(stacking, PMPO, {"alpha": 1.0}).collapse is None
    assert doctor(stacking, PMPO, {"divergence": "reverse", "beta": 9}).collapse is None


def test_rare_labels_lower_the_thresholds_by_the_chance_that_a_minibatch_has_one(stacking: Dataset) -> None:
    label = columns.labels(stacking.table)
    kept = np.where(np.arange(len(label)) % 50 == 0, label, 0)
    rare = with_labels(stacking, kept)
    share = (kept != 0).mean()
    for rows in (8, 64):
        present = 1 - (1 - share) ** rows
        assert present < 0.8
        found = doctor(rare, PMPO, {"batch": rows})
        assert found.bound == pytest.approx(present * 0.5 / share)  # (1 - alpha) w_r / P_r
        assert found.minibatch_factor == pytest.approx(present)
        assert found.collapse == pytest.approx(present * max(0.0, rare.metadata.reject_share - 0.5))
        assert found.factor == pytest.approx(1.05), "a multiple is one of the bound in these minibatches"
        assert any(f"the bound is {present:.3g} of the" in note for note in found.notes)
        quick = {"updates": 1, "batch": rows, "hidden": [4], "components": 1}
        trained = train(rare, "pmpo", overrides=quick, device="cpu")
        assert (trained.bounds[0], trained.runs[0][0]["beta"]) == (found.bound, found.settings["beta"])
    assert doctor(stacking, PMPO).minibatch_factor == 1


def test_a_floor_without_a_divergence_is_refused(stacking: Dataset) -> None:
    note = "at β = 0 nothing keeps the policy near its reference as it moves away from the rejects"
    assert note in doctor(stacking, PMPO, {"beta": 0.0, "floor": 1e-6}).notes
    kept = doctor(stacking, PMPO, {"beta": "1.05x", "floor": 1e-6})
    assert note not in kept.notes
    assert kept.settings["beta"] == pytest.approx(1.05 * doctor(stacking, PMPO).bounds["joint"])


def test_nothing_to_measure_the_reject_mass_by(stacking: Dataset) -> None:
    accepts = stacking.relabelled(imbalance=1.0)
    found = doctor(accepts, PMPO, {"reject_mass": "dataset"})
    assert (found.verdict, found.bound, found.settings["reject_mass"]) == ("bounded", 0, 1.0)
    imitator = PMPO.model_copy(update={"rows": "accepted"})
    found = doctor(stacking, imitator, {"reject_mass": "dataset"})
    assert (found.verdict, found.bound, found.settings["reject_mass"]) == ("bounded", 0, 1.0)


def test_values_that_are_not_allowed(stacking: Dataset) -> None:
    for settings, message in (
        ({"alpha": 2.0}, "pmpo.alpha is a number from 0 to 1, not 2.0"),
        ({"beta": "much"}, "pmpo.beta is a number of 0 or more, or a multiple of its bound"),
        ({"alhpa": 0.5}, "unknown setting of pmpo 'alhpa': did you mean alpha"),
    ):
        with pytest.raises(UserError, match=message):
            doctor(stacking, PMPO, settings)


def test_of_responses_only_those_that_are_trained_on_count() -> None:
    completions = [
        ("a", "good", True),
        ("a", "bad", False),
        ("b", "fine", True),
        ("b", "poor", False),
        ("b", "no", False),
    ]
    completions += [(f"held out {number}", "good", True) for number in range(20)]
    rows = [{"prompt": prompt, "completion": text, "label": label} for prompt, text, label in completions]
    every = dataset_of(rows, tokenizer())
    data = replace(every, table=columns.replace(every.table, split=pa.array(["train"] * 5 + ["test"] * 20)))

    def of(name: str, dataset: Dataset = data) -> Diagnosis:
        return doctor(dataset, catalog.algorithm(name, "language"))

    found = of("pmpo")
    assert (found.accepted, found.rejected, found.unlabelled) == (2, 3, 0)
    assert found.labelled_reject_mass == found.reject_share == pytest.approx(3 / 5)
    assert found.bounds["set"] == pytest.approx(0.5 / (3 / 5))
    assert (of("dpo").verdict, of("dpo").pairs, of("mpo").verdict) == ("ready", 1 + 2, "ready")
    weighted = catalog.algorithm("bc", "language").model_copy(update={"objective": "awr"})
    assert doctor(data, weighted).verdict == "ready"
    single = replace(data, table=columns.replace(data.table, prompt_id=pa.array(range(25), pa.int32())))
    assert of("dpo", single).notes[0].startswith("no prompt has both an accepted and a rejected response")
    for nothing in (of("mpo", single), doctor(single, weighted)):
        assert nothing.verdict == "cannot learn"
        assert nothing.notes[0].endswith("no prompt has two scored ones")
    of_prompt = pa.array([float(number) for number in data.table["prompt_id"].to_pylist()], pa.float32())
    equal = replace(data, table=columns.replace(data.table, score=of_prompt))  # some prompts' are higher: no matter
    for nothing in (of("mpo", equal), doctor(equal, weighted)):
        assert nothing.verdict == "cannot learn"
        assert nothing.notes[0].endswith("no response is better than another: all scores of a prompt are equal")
