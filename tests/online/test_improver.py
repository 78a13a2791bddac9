"""Improving a policy online: it learns from ranks, not from noise; runs do not see one another; pairs are pairs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.experiments.bandits.gaussian import GaussianPolicy
from pmpo_offline.objectives import OBJECTIVES, Objective, dpo
from pmpo_offline.objectives.divergences import gaussian_kl
from pmpo_offline.online.improver import Algorithm, Draws, Improver, OnlineBatch, OnlineSettings
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.tasks.bandit import FUNCTIONS
from pmpo_offline.training.control.divergence import from_reference

SPHERE = FUNCTIONS["sphere"]
FORWARD = {"divergence": "forward"}


def column(*values: float) -> Tensor:
    return torch.tensor(values).unsqueeze(1)


def gaussian(runs: int, dimensions: int = 2) -> GaussianPolicy:
    return GaussianPolicy(torch.zeros(runs, dimensions), torch.full((runs, dimensions), 0.5))


def improve(objective: str, settings: dict[str, Any], seeds: list[int], steps: int, **more: Any) -> GaussianPolicy:
    policy = gaussian(len(seeds))
    algorithm = Algorithm(objective, settings, learning_rate=0.04, **more)
    improver = Improver(policy, algorithm, OnlineSettings(refresh=0.03), seeds)
    for _ in range(steps):
        improver.update(torch.zeros(len(seeds), 1, 1), lambda observation, action: SPHERE.reward(action))
    return policy


def ranked(action: Tensor, score: Tensor, paired: int = 2, settings: dict[str, Any] | None = None) -> OnlineBatch:
    runs, states, _, dimensions = action.shape
    policy, reference = gaussian(runs, dimensions), gaussian(runs, dimensions)
    with torch.no_grad():
        policy.mean += 0.3
        policy.log_std -= 0.2
    observation = torch.zeros(runs, states, 1)
    complete = {"over": "all"} | (settings or {})
    return OnlineBatch(action, score, policy(observation), reference(observation), complete, paired, step=0)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_accepts_rejects_and_both_learn_and_random_labels_do_not():
    seeds = [0, 1, 2] * 4
    policy = improve(
        "pmpo",
        {"alpha": column(*[1.0] * 3, *[0.0] * 3, *[0.5] * 6), "beta": column(*[0.5] * 3, *[1.0] * 3, *[0.5] * 6)}
        | FORWARD,
        seeds,
        steps=120,
        shuffled=torch.tensor([False] * 9 + [True] * 3),
    )
    regret = SPHERE.regret(policy.mean.detach()).view(4, 3)
    start = SPHERE.regret(torch.zeros(2)).item()
    assert (regret[:3] < 0.2 * start).all()
    assert (regret[3] > 0.5 * start).all()


@pytest.mark.parametrize(
    ("objective", "settings"), [("mpo", {"temperature": 0.2}), ("dpo", {"beta": 1.0}), ("kto", {"beta": 1.0})]
)
def test_the_other_objectives_learn_in_the_same_loop(objective: str, settings: dict[str, float]):
    policy = improve(objective, settings, [0, 1], steps=120)
    assert (SPHERE.regret(policy.mean.detach()) < 0.2 * SPHERE.regret(torch.zeros(2))).all()


def test_a_stacked_run_equals_the_run_alone():
    alpha, beta = [1.0, 0.0, 0.5], [0.5, 1.0, 0.3]
    together = improve("pmpo", {"alpha": column(*alpha), "beta": column(*beta)} | FORWARD, [4, 4, 7], steps=20)
    for run, seed in enumerate([4, 4, 7]):
        alone = improve("pmpo", {"alpha": alpha[run], "beta": beta[run]} | FORWARD, [seed], steps=20)
        torch.testing.assert_close(alone.mean[0], together.mean[run], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(alone.log_std[0], together.log_std[run], rtol=1e-4, atol=1e-5)


def test_the_reference_follows_slowly_and_draws_the_candidates():
    policy, seen = gaussian(1), []
    improver = Improver(policy, Algorithm("pmpo", FORWARD, learning_rate=0.1), OnlineSettings(refresh=0.25), [0])

    def scorer(observation: Tensor, action: Tensor) -> Tensor:
        seen.append(action)
        return SPHERE.reward(action)

    start = policy.mean.detach().clone()
    improver.update(torch.zeros(1, 3, 1), scorer)
    _, normal = Draws([0])(0, (3, 4, 2))
    torch.testing.assert_close(seen[0], 0.5 * normal)
    torch.testing.assert_close(improver.reference.mean, start.lerp(policy.mean, 0.25))
    assert not improver.reference.mean.requires_grad or improver.reference.mean.grad is None


def test_policies_with_a_network_are_improved_state_by_state():
    """Two states whose best actions differ: a constant policy could not serve both."""
    best = torch.tensor([[-0.6], [0.6]])
    policy = MixturePolicy([0], torch.zeros(1), torch.ones(1), 1, components=1, hidden=(16,), std_range=(0.05, 3.0))
    algorithm = Algorithm("pmpo", {"beta": 0.5} | FORWARD, learning_rate=0.02)
    improver = Improver(policy, algorithm, OnlineSettings(refresh=0.05), [0])
    observation = torch.tensor([[[-1.0], [1.0]]])
    for _ in range(200):
        improver.update(observation, lambda states, action: -(action - best[:, None]).square().sum(-1))
    mean = policy(observation).mode().detach()[0]
    torch.testing.assert_close(mean, best, atol=0.15, rtol=0)


def test_labels_are_the_better_and_the_worse_half():
    score = torch.tensor([[[3.0, 1.0, 2.0, 0.0], [5.0, 6.0, 7.0, 8.0]]])
    batch = ranked(drawn(1, 2, 4, 2), score)
    assert batch.label.tolist() == [[1, -1, 1, -1, -1, -1, 1, 1]]
    assert batch.advantage.tolist() == [[1.5, -0.5, 0.5, -1.5, -1.5, -0.5, 0.5, 1.5]]
    tied = ranked(drawn(1, 2, 4, 2), torch.tensor([[[1.0, 0.0, 1.0, 2.0], [0.0, 0.0, 0.0, 0.0]]]))
    assert tied.label.tolist() == [[0, -1, 0, 1, 0, 0, 0, 0]]


def test_all_pairs_are_the_average_over_every_accepted_and_rejected_one():
    action, score = drawn(3, 5, 4, 2), drawn(3, 5, 4, seed=1)
    batch = ranked(action, score, paired=2)
    loss = OBJECTIVES["dpo"]({name: getattr(batch, name) for name in OBJECTIVES["dpo"].inputs.values()}, beta=0.7)[0]

    order = score.argsort(-1)
    policy, reference = batch.group_logp, ranked(action, score)._group_ref
    one_by_one = []
    for accepted in (2, 3):
        for rejected in (0, 1):
            picked = [values.gather(-1, order)[..., i] for values in (policy, reference) for i in (accepted, rejected)]
            one_by_one.append(dpo(*picked, beta=0.7)[0])
    torch.testing.assert_close(loss, torch.stack(one_by_one).mean(0))


def test_one_pair_is_the_best_and_the_worst():
    score = drawn(2, 3, 4, seed=1)
    batch = ranked(drawn(2, 3, 4, 2), score, paired=1)
    torch.testing.assert_close(
        batch.logp_chosen, batch.group_logp.gather(-1, score.argmax(-1, keepdim=True)).squeeze(-1)
    )
    torch.testing.assert_close(
        batch.ref_rejected, batch._group_ref.gather(-1, score.argmin(-1, keepdim=True)).squeeze(-1)
    )


@pytest.mark.parametrize(("candidates", "paired"), [(2, 2), (3, 2), (4, 3)])
def test_a_candidate_is_never_paired_with_itself(candidates: int, paired: int):
    with pytest.raises(ValueError, match=f"overlap: set paired to {candidates // 2} or less"):
        OnlineSettings(candidates=candidates, paired=paired)
    OnlineSettings(candidates=candidates, paired=candidates // 2)


@pytest.mark.parametrize("candidates", [2, 3])
def test_few_candidates_learn_too(candidates: int):
    policy = gaussian(1)
    hyper = OnlineSettings(candidates=candidates, paired=1, refresh=0.03)
    improver = Improver(policy, Algorithm("dpo", {"beta": 1.0}, learning_rate=0.04), hyper, [0])
    for _ in range(120):
        improver.update(torch.zeros(1, 4, 1), lambda observation, action: SPHERE.reward(action))
    assert SPHERE.regret(policy.mean.detach()) < 0.2 * SPHERE.regret(torch.zeros(2))


def test_equal_scores_are_unlabelled_and_pairs_labelled_by_a_coin():
    """PMPO has the gradient of its divergence alone. A tied pair is as often one way as the other: an optimum at 0."""
    action, tied = drawn(1, 2000, 4, 2), torch.zeros(1, 2000, 4)
    batch = ranked(action, tied, settings=FORWARD | {"order": 0.5})
    assert not batch.label.any()
    inputs = {name: getattr(batch, name) for name in ("logp", "label", "divergence")}
    torch.testing.assert_close(OBJECTIVES["pmpo"](inputs, beta=0.7)[0], 0.7 * batch.divergence)

    margin = (batch.logp_chosen - batch.ref_chosen) - (batch.logp_rejected - batch.ref_rejected)
    assert (margin.abs() > 1e-3).float().mean() > 0.9, "there is a gradient"
    assert margin.mean().abs() < 4 * margin.std() / 2000**0.5
    _, metrics = OBJECTIVES["dpo"]({name: getattr(batch, name) for name in OBJECTIVES["dpo"].inputs.values()})
    assert metrics["accuracy"].item() == pytest.approx(0.5, abs=0.05)


def test_the_divergence_is_over_all_candidates_or_the_labelled():
    action = drawn(1, 2, 4, 2)
    score = torch.tensor([[[1.0, 0.0, 1.0, 2.0], [0.0, 0.0, 0.0, 0.0]]])  # labels 0 - 0 +, and none
    logp = ranked(action, score).group_logp
    behavior = {"divergence": "behavior"}
    torch.testing.assert_close(ranked(action, score, settings=behavior).divergence, -logp.mean((1, 2)))
    labelled = ranked(action, score, settings=behavior | {"over": "labelled"}).divergence
    torch.testing.assert_close(labelled, -logp[:, 0, [1, 3]].mean(-1))
    nothing = ranked(action, torch.zeros(1, 2, 4), settings=behavior | {"over": "labelled"})
    assert nothing.divergence.tolist() == [0.0]


def networked(step: int, over: str, components: int = 2) -> OnlineBatch:
    """Two states that differ, the second without labels."""
    policy, reference = (
        MixturePolicy([seed], torch.zeros(1), torch.ones(1), 2, components=components, hidden=(8,)) for seed in (0, 1)
    )
    observation = torch.tensor([[[-1.0], [1.0]]])
    score = torch.tensor([[[3.0, 2.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]])
    settings = {"divergence": "forward", "order": 0.5, "over": over}
    return OnlineBatch(drawn(1, 2, 4, 2), score, policy(observation), reference(observation), settings, 2, step)


def test_states_count_as_often_as_they_have_labelled_candidates():
    of_gaussian = [networked(0, over, components=1) for over in ("all", "labelled")]
    far = from_reference(of_gaussian[0].policy, of_gaussian[0].reference, "forward", 0.5, 0)
    assert far[0, 0] != far[0, 1]
    torch.testing.assert_close(of_gaussian[0].divergence, far.mean(-1))
    torch.testing.assert_close(of_gaussian[1].divergence, far[:, 0])


def test_divergences_of_mixtures_are_drawn_anew_every_step():
    assert networked(0, "all").divergence == networked(0, "all").divergence
    assert networked(0, "all").divergence != networked(1, "all").divergence
    assert networked(0, "all").policy_kl != networked(1, "all").policy_kl


def test_divergences_are_closed_between_gaussians():
    action, score = drawn(2, 3, 4, 5), drawn(2, 3, 4, seed=1)
    reference = torch.zeros(5), torch.full((5,), 0.5).log()
    policy = torch.full((5,), 0.3), torch.full((5,), 0.5).log() - 0.2
    forward = ranked(action, score, settings={"divergence": "forward", "order": 0.5}).divergence
    torch.testing.assert_close(forward, gaussian_kl(*reference, *policy).expand(2))
    torch.testing.assert_close(ranked(action, score).policy_kl, gaussian_kl(*policy, *reference).expand(2))
    behavior = ranked(action, score, settings={"divergence": "behavior"})
    torch.testing.assert_close(behavior.divergence, -behavior.logp.mean(-1))


def test_draws_depend_on_the_seed_and_the_step_alone():
    draws = Draws([5, 9, 5])
    uniform, normal = draws(70, (2, 4, 3))
    assert uniform.shape == (3, 2, 4, 2)
    assert normal.shape == (3, 2, 4, 3)
    torch.testing.assert_close(normal[0], normal[2], rtol=0, atol=0)
    assert not (normal[0] == normal[1]).any()
    draws(71, (2, 4, 3))
    alone = Draws([9])(70, (2, 4, 3))
    torch.testing.assert_close(alone[1][0], normal[1], rtol=0, atol=0)
    assert not (draws(71, (2, 4, 3))[1] == normal).any()


def test_the_control_gets_each_score_equally_often():
    """Random order, each candidate's own score among them: any fixed exchange would tell the others' scores apart."""
    seen: list[Tensor] = []

    def record(logp: Tensor, score: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        seen.append(score)
        return logp.mean((-2, -1)), {}

    probe = Objective("probe", record, {"logp": "group_logp", "score": "group_score"}, {})
    runs = torch.tensor([True, False])
    improver = Improver(gaussian(2), Algorithm(probe, learning_rate=1e-9, shuffled=runs), OnlineSettings(), [0, 0])
    for _ in range(64):
        improver.update(torch.zeros(2, 50, 1), lambda observation, action: torch.arange(4.0).expand(2, 50, 4))
    order, honest = torch.cat(seen, dim=1).long()
    assert honest.equal(torch.arange(4).expand_as(honest)), "a run that is no control gets the true scores"
    assert order.sort(-1).values.equal(honest), "the same scores in another order"
    for candidate in range(4):
        share = torch.bincount(order[:, candidate], minlength=4) / len(order)
        torch.testing.assert_close(share, torch.full((4,), 0.25), atol=0.03, rtol=0)
