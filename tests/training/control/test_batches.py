"""Minibatches: which rows are drawn, and what they say by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pmpo_offline.build import build_dataset
from pmpo_offline.data import Dataset, Rows
from pmpo_offline.declarations import catalog
from pmpo_offline.objectives import OBJECTIVES
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.training.control.batches import Learner, RowBatch, check_rows, inputs
from pmpo_offline.training.control.divergence import from_reference
from pmpo_offline.training.control.sampler import Pools, Sampler

CPU = torch.device("cpu")
SEEDS = (0, 1)
PMPO = OBJECTIVES["pmpo"].settings


def sampler(dataset: Dataset, rows: str, seeds: tuple[int, ...] = SEEDS, shuffle: bool = False) -> Sampler:
    algorithm = catalog.algorithm("pmpo", "rgb-stacking").model_copy(update={"rows": rows})
    return Sampler(dataset, algorithm, seeds, shuffle=shuffle, device=CPU)


@pytest.fixture
def policy(stacking: Dataset) -> Callable[[int], MixturePolicy]:
    observation = Rows.of(stacking).observation

    def make(first: int) -> MixturePolicy:
        seeds = [first + seed for seed in SEEDS]
        return MixturePolicy(seeds, observation.mean(0), observation.std(0), 5, components=3, hidden=(16,))

    return make


def test_pools_of_different_sizes_are_drawn_evenly() -> None:
    pools = Pools([torch.tensor([5, 6, 7]), torch.tensor([9])])
    drawn = torch.cat([pools.draw([0, 1], step, 100) for step in range(30)], dim=1)
    assert set(drawn[0].tolist()) == {5, 6, 7}
    assert set(drawn[1].tolist()) == {9}
    assert (torch.bincount(drawn[0])[5:] / 3000 - 1 / 3).abs().max() < 0.04
    shared = Pools([torch.arange(50)])
    assert shared.draw([3, 4], 7, 8)[1].equal(shared.draw([4], 7, 8)[0]), "a run draws alike alone"
    assert not shared.draw([3], 7, 8).equal(shared.draw([3], 8, 8))


def test_what_a_minibatch_is_made_of(stacking: Dataset, policy: Callable[[int], MixturePolicy]) -> None:
    def labels(rows: str) -> Tensor:
        batch = sampler(stacking, rows).batch(0, 64, Learner(policy(0)))
        assert isinstance(batch, RowBatch)
        assert batch.label.shape == (2, 64)
        return batch.label

    assert (labels("accepted") == 1).all()
    partly = stacking.relabelled(imbalance=0.2)  # some accepted episodes lose their labels
    batch = sampler(partly, "unrejected").batch(0, 64, Learner(policy(0)))
    assert isinstance(batch, RowBatch)
    assert set(batch.label.unique().tolist()) == {0, 1}
    assert labels("balanced").sum(1).tolist() == [0, 0]
    assert (labels("balanced") != 0).all()
    assert set(labels("all").flatten().tolist()) == {1.0, -1.0}


def test_names_of_a_minibatch_of_rows(stacking: Dataset, policy: Callable[[int], MixturePolicy]) -> None:
    source = sampler(stacking, "all")
    learner, reference = policy(0), policy(10)
    batch = source.batch(3, 32, Learner(learner, reference, PMPO))
    assert isinstance(batch, RowBatch)
    index = Pools([torch.arange(len(stacking))]).draw(SEEDS, 3, 32)
    rows = Rows.of(stacking)
    assert batch.label.equal(rows.label[index])
    expected = learner(rows.observation[index]).log_prob(rows.action[index])
    torch.testing.assert_close(batch.logp, expected)
    torch.testing.assert_close(batch.divergence, -expected.mean(1))
    torch.testing.assert_close(batch.ref_logp, reference(rows.observation[index]).log_prob(rows.action[index]))
    assert not batch.ref_logp.requires_grad
    assert batch.policy_kl.shape == (2,)
    assert (batch.policy_kl >= 0).all()
    assert not batch.policy_kl.requires_grad
    unmoved = source.batch(3, 32, Learner(learner, learner))
    assert isinstance(unmoved, RowBatch)
    assert unmoved.policy_kl.tolist() == [0, 0], "a policy is no way from itself"


def test_the_divergence_is_what_the_settings_say(stacking: Dataset, policy: Callable[[int], MixturePolicy]) -> None:
    half = stacking.relabelled("return:q0.5:20", imbalance=0.3)
    source, learner, reference = sampler(half, "all"), policy(0), policy(10)

    def batch(**settings: Any) -> RowBatch:
        made = source.batch(3, 64, Learner(learner, reference, {**PMPO, **settings}))
        assert isinstance(made, RowBatch)
        return made

    labelled = batch().label != 0
    assert 0 < labelled.sum() < labelled.numel()
    logp = batch().logp
    by_hand = torch.stack([-row[mask].mean() for row, mask in zip(logp, labelled, strict=True)])
    torch.testing.assert_close(batch(over="labelled").divergence, by_hand)
    torch.testing.assert_close(batch(over="all").divergence, -logp.mean(1))
    seen = set()
    for kind in ("forward", "reverse", "alpha", "renyi"):
        apart = batch(divergence=kind)
        distributions = apart._distribution, apart._reference_distribution
        torch.testing.assert_close(apart.divergence, from_reference(*distributions, kind, 0.5, seed=3).mean(1))
        assert apart.divergence.requires_grad
        seen.add(round(float(apart.divergence[0].detach()), 6))
    assert len(seen) == 4
    with pytest.raises(UserError, match="reference policy"):
        _ = source.batch(3, 64, Learner(learner, settings={**PMPO, "divergence": "forward"})).divergence  # type: ignore[union-attr]


def test_advantages_come_from_a_dataset_that_holds_them(
    stacking: Dataset, advantage: Dataset, policy: Callable[[int], MixturePolicy]
) -> None:
    batch = sampler(advantage, "all").batch(0, 64, Learner(policy(0)))
    assert isinstance(batch, RowBatch)
    # The label of the fixture is the advantage's sign.
    assert batch.advantage.shape == (2, 64)
    assert batch.advantage.sign().equal(batch.label)
    other = sampler(stacking, "all").batch(0, 64, Learner(policy(0)))
    with pytest.raises(UserError, match="the dataset is scored by success: build one with build-dataset --label adv"):
        _ = other.advantage  # type: ignore[union-attr]


def test_candidates_and_pairs(stacking: Dataset, policy: Callable[[int], MixturePolicy]) -> None:
    learner, reference = policy(0), policy(10)
    groups = sampler(stacking, "candidates").batch(0, 16, Learner(learner))
    assert groups.group_logp.shape == groups.group_score.shape == (2, 16, 4)  # type: ignore[union-attr]
    pairs = sampler(stacking, "pairs").batch(0, 16, Learner(learner, reference))
    named = inputs(pairs, {name: name for name in ("logp_chosen", "logp_rejected", "ref_chosen", "ref_rejected")})
    assert {tuple(each.shape) for each in named.values()} == {(2, 16)}
    assert named["logp_chosen"].requires_grad
    assert not named["ref_chosen"].requires_grad
    # The same actions under the same policy say the same, whichever side asks.
    mirrored = inputs(
        sampler(stacking, "pairs").batch(0, 16, Learner(reference, learner)), {"a": "ref_chosen", "b": "logp_rejected"}
    )
    torch.testing.assert_close(mirrored["ref_chosen"], named["logp_chosen"].detach())
    torch.testing.assert_close(mirrored["logp_rejected"].detach(), named["ref_rejected"])


def test_accepts_alone_pull_where_cloning_the_accepts_does(
    stacking: Dataset, policy: Callable[[int], MixturePolicy]
) -> None:
    learner = policy(0)
    batch = sampler(stacking, "all").batch(0, 256, Learner(learner, settings=PMPO))
    assert isinstance(batch, RowBatch)

    def gradient(loss: Tensor) -> Tensor:
        gradients = torch.autograd.grad(loss.sum(), list(learner.parameters()), retain_graph=True)
        return torch.cat([each.flatten(1) for each in gradients], dim=1)

    loss, _ = OBJECTIVES["pmpo"](inputs(batch, OBJECTIVES["pmpo"].inputs), alpha=1.0, beta=0.0, normalize="set")
    accepted = (batch.label > 0).float()
    clone, _ = OBJECTIVES["bc"].loss(batch.logp, weight=accepted)
    torch.testing.assert_close(gradient(loss), gradient(clone))
    joint, _ = OBJECTIVES["pmpo"](inputs(batch, OBJECTIVES["pmpo"].inputs), alpha=1.0, beta=0.0, normalize="joint")
    share = accepted.mean(1, keepdim=True)
    torch.testing.assert_close(gradient(joint), gradient(clone) * share)


def test_objective_without_its_inputs_is_refused(stacking: Dataset, policy: Callable[[int], MixturePolicy]) -> None:
    batch = sampler(stacking, "all").batch(0, 8, Learner(policy(0)))
    with pytest.raises(UserError, match=r"minibatches of all rows have no logp_chosen, an input of dpo: set `rows`"):
        check_rows(catalog.algorithm("dpo", "rgb-stacking").model_copy(update={"rows": "all"}))
    with pytest.raises(UserError, match="reference policy: set start"):
        inputs(batch, OBJECTIVES["kto"].inputs)


@pytest.mark.parametrize("rows", ["accepted", "balanced", "pairs"])
def test_nothing_accepted_is_refused(stacking: Dataset, rows: str) -> None:
    with pytest.raises(UserError, match="the labels leave this algorithm nothing to learn from"):
        sampler(stacking.relabelled(imbalance=0.0), rows)


@pytest.mark.parametrize("rows", ["candidates", "pairs"])
def test_dataset_without_candidates_is_refused(stacking: Dataset, rows: str) -> None:
    with pytest.raises(UserError, match="scored candidate actions and the dataset has none"):
        sampler(replace(stacking, candidates=None), rows)


def test_each_run_has_its_own_shuffle(stacking: Dataset, policy: Callable[[int], MixturePolicy]) -> None:
    together = sampler(stacking, "all", shuffle=True).batch(0, 400, Learner(policy(0)))
    for run, seed in enumerate(SEEDS):
        alone = sampler(stacking, "all", (seed,), shuffle=True).batch(0, 400, Learner(policy(0)))
        assert together.label[run].equal(alone.label[0])  # type: ignore[union-attr]
    pools = sampler(stacking, "accepted", shuffle=True).batch(0, 64, Learner(policy(0)))
    assert (pools.label == 1).all()  # type: ignore[union-attr]
    pairs = sampler(stacking, "pairs", shuffle=True).batch(0, 64, Learner(policy(0), policy(1)))
    assert torch.isfinite(pairs.logp_chosen).all()  # type: ignore[union-attr]


def test_a_batch_too_small_for_both_classes(stacking: Dataset, policy: Callable[[int], MixturePolicy]) -> None:
    with pytest.raises(UserError, match="batch is 1, and a minibatch of balanced rows has 2 parts: raise it"):
        sampler(stacking, "balanced").batch(0, 1, Learner(policy(0)))


def test_pairs_of_labelled_steps_are_accepts_beside_rejects(tmp_path: Path) -> None:
    bandit = build_dataset("bandit/sphere-v0", episodes=200, home=tmp_path)
    algorithm = catalog.algorithm("dpo-labels", "bandit")
    drawn = Sampler(bandit, algorithm, SEEDS, shuffle=False, device=CPU)
    observation = drawn.rows.observation
    policy = MixturePolicy(SEEDS, observation.mean(0), observation.std(0), drawn.rows.action.shape[1], components=2)
    batch = drawn.batch(0, 64, Learner(policy, policy))
    assert isinstance(batch, RowBatch)
    assert (batch.label[:, :32] == 1).all()
    assert (batch.label[:, 32:] == -1).all()
    found = inputs(batch, OBJECTIVES["dpo"].inputs)
    assert found["logp_chosen"].equal(batch.logp[:, :32])
    assert found["logp_rejected"].equal(batch.logp[:, 32:])
    assert found["ref_rejected"].shape == (2, 32)


def test_steps_of_different_states_are_no_pairs(stacking: Dataset) -> None:
    with pytest.raises(UserError, match="pairs of labelled steps need one context"):
        sampler(stacking, "label_pairs")
