"""Below its bound PMPO has no minimum, and still training ends somewhere: the limit in closed form, by brute force."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pmpo_offline.objectives import pmpo
from pmpo_offline.objectives.stability import (
    beta_collapse,
    beta_min,
    coefficients,
    limit_policy,
    optimal_policy,
    state_collapse,
)

K = 30
CHANCE = torch.Generator().manual_seed(0)
REFERENCE = torch.rand(K, generator=CHANCE, dtype=torch.float64).pow(2) + 0.02
REFERENCE = REFERENCE / REFERENCE.sum()
GOOD = (torch.rand(K, generator=CHANCE, dtype=torch.float64) < 0.35).double()
BAD = 1 - GOOD
LABELLED = torch.rand(K, generator=CHANCE, dtype=torch.float64)
LABELS = {
    "all labelled": (GOOD, BAD),
    "half of them": (0.5 * GOOD, 0.5 * BAD),
    "each at its own rate": (LABELLED * GOOD, LABELLED * BAD),
    "accepts dropped": (0.1 * GOOD, BAD),
    "flipped": (0.8 * GOOD + 0.2 * BAD, 0.2 * GOOD + 0.8 * BAD),
    "flipped, then accepts dropped": (0.3 * (0.8 * GOOD + 0.2 * BAD), 0.2 * GOOD + 0.8 * BAD),
    "weighted": (3 * GOOD * LABELLED, (1 + LABELLED) * BAD),  # a row's weight counts like that many rows
    "rejects alone": (0 * GOOD, BAD),
}


def ascent(coefficient: Tensor, steps: int = 20_000) -> Tensor:
    """Gradient ascent of sum c(y) log pi(y) on logits, from the reference; leading dimensions are ascents at once.

    It ends early where 500 steps change no probability by more than 1e-8: what is left is at most t / 500 times that.
    """
    logits, total = REFERENCE.log(), coefficient.sum(-1, keepdim=True)
    rate = 1.5 / total.abs()  # beyond 2 a step overshoots
    before = logits.softmax(-1)
    for step in range(steps):
        policy = logits.softmax(-1)
        if step % 500 == 499:
            if (policy - before).abs().max() < 1e-8:
                break
            before = policy
        logits = logits + rate * (coefficient - total * policy)
    return logits.softmax(-1)


def shares(accept: Tensor, reject: Tensor) -> float:
    accepts, rejects = float(REFERENCE @ accept), float(REFERENCE @ reject)
    return rejects / (accepts + rejects)


@pytest.mark.parametrize("normalize", ["joint", "set"])
@pytest.mark.parametrize("labels", LABELS)
def test_training_ends_at_the_limit_policy(labels: str, normalize: str):
    accept, reject = LABELS[labels]
    threshold = beta_collapse(0.4, shares(accept, reject), normalize)
    above = (0.2, 0.6)
    coefficient = torch.stack(
        [
            coefficients(REFERENCE, accept, reject, alpha=0.4, beta=threshold + each, normalize=normalize)
            for each in above
        ]
    )
    assert threshold == 0 or coefficient.sum(-1).tolist() == pytest.approx(above)
    expected = torch.stack([limit_policy(each) for each in coefficient])
    torch.testing.assert_close(ascent(coefficient), expected, atol=1e-4, rtol=0)


def support(policy: Tensor) -> int:
    return int((policy > 1e-6).sum())


@pytest.mark.parametrize("normalize", ["joint", "set"])
@pytest.mark.parametrize("labels", LABELS)
def test_below_the_second_threshold_one_outcome_is_left_and_above_it_ever_more(labels: str, normalize: str):
    accept, reject = LABELS[labels]
    threshold = beta_collapse(0.2, shares(accept, reject), normalize)
    assert threshold > 0

    betas = [0.9 * threshold, *(threshold + above for above in (0.02, 0.1, 0.2, 0.4))]
    coefficient = torch.stack(
        [coefficients(REFERENCE, accept, reject, alpha=0.2, beta=beta, normalize=normalize) for beta in betas]
    )
    below, *supports = [support(policy) for policy in ascent(coefficient, 5_000)]
    assert below == 1
    assert supports == sorted(supports)
    assert supports[-1] > 3


@pytest.mark.parametrize("normalize", ["joint", "set"])
def test_the_three_regimes(normalize: str):
    """Between the thresholds rejected outcomes vanish and several accepted ones are left; above both, all are left."""
    accept, reject = LABELS["all labelled"]
    bound = beta_min(0.2, float(REFERENCE @ reject), normalize)
    threshold = beta_collapse(0.2, shares(accept, reject), normalize)
    assert 0 < threshold < bound
    betas = (0.3 * threshold + 0.7 * bound, 1.1 * bound)
    coefficient = torch.stack(
        [coefficients(REFERENCE, accept, reject, alpha=0.2, beta=beta, normalize=normalize) for beta in betas]
    )
    between, above = ascent(coefficient, 5_000)
    assert support(between * BAD) == 0
    assert 3 < support(between) < support(above) == K


def test_the_sum_of_the_coefficients_is_what_weighted_rows_give():
    """The loss itself, with weights: its gradient on the logits is C pi(y) - c(y)."""
    weights = 1 + 2 * torch.rand(64, generator=CHANCE, dtype=torch.float64)
    outcome = torch.randint(K, (64,), generator=CHANCE)
    label = torch.where(torch.rand(64, generator=CHANCE, dtype=torch.float64) < 0.4, 1.0, -1.0)
    for normalize in ("joint", "set"):
        logits = REFERENCE.log().requires_grad_()
        logp = logits.log_softmax(-1)
        kl = -(REFERENCE * logp).sum()
        settings = {"alpha": 0.3, "beta": 0.7, "normalize": normalize}
        loss, _ = pmpo(logp[outcome], label, kl, weight=weights, **settings)
        (gradient,) = torch.autograd.grad(loss, logits)
        amounts = [torch.zeros(K).double().index_add(0, outcome, weights * (label == sign)) for sign in (1.0, -1.0)]
        coefficient = coefficients(REFERENCE, *(amount / REFERENCE for amount in amounts), **settings)
        torch.testing.assert_close(gradient, coefficient.sum() * REFERENCE - coefficient)
        share = float(amounts[1].sum() / weights.sum())
        w_accept, w_reject = (1, 1) if normalize == "set" else (1 - share, share)
        assert float(coefficient.sum()) == pytest.approx(0.7 + 0.3 * w_accept - 0.7 * w_reject)
        assert beta_collapse(0.3, share, normalize) == pytest.approx(max(0.0, 0.7 - float(coefficient.sum())))


def test_above_the_bound_the_limit_is_the_minimum():
    accept, reject = LABELS["all labelled"]
    settings = {"alpha": 0.5, "beta": 0.7, "normalize": "joint"}
    limit = limit_policy(coefficients(REFERENCE, accept, reject, **settings))
    torch.testing.assert_close(limit, optimal_policy(REFERENCE, accept, reject, **settings))


def test_by_hand():
    # c = (.5, .3, -.2), C = .6: over the first two the level is (.5 + .3 - .6) / 2 = .1, and .3 > .1 > -.2.
    limit = limit_policy(torch.tensor([0.5, 0.3, -0.2], dtype=torch.float64))
    torch.testing.assert_close(limit, torch.tensor([0.4 / 0.6, 0.2 / 0.6, 0.0], dtype=torch.float64))
    assert beta_collapse(0.5, 0.719, "joint") == pytest.approx(0.219)  # P_r - alpha
    assert beta_collapse(0.5, 0.719, "set") == 0  # 1 - 2 alpha
    assert beta_collapse(0.0, 1.0, "set") == beta_collapse(0.0, 1.0, "joint") == 1  # rejects alone
    assert beta_collapse(0.2, 1.0, "set") == 0.8  # without accepts alpha pulls nothing
    assert beta_collapse(0.5, 0.0) == 0  # nothing is pushed away
    with pytest.raises(ValueError, match="collapses"):
        limit_policy(torch.tensor([0.5, -0.6]))
    with pytest.raises(ValueError, match="alpha lies"):
        beta_collapse(1.5, 0.5)


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.1), (0.2, 1.0), (0.8, 0.0)])
def test_pmpo_is_reinforce_with_a_baseline(alpha: float, beta: float):
    """With every row labelled, joint, and the divergence on the recorded rows: AsymRE with V = 1 - alpha - beta."""
    logp = torch.randn(64, generator=CHANCE, dtype=torch.float64).sub(3).requires_grad_()
    label = torch.where(torch.rand(64, generator=CHANCE, dtype=torch.float64) < 0.3, 1.0, -1.0)
    loss, _ = pmpo(logp, label, -logp.mean(), alpha=alpha, beta=beta, normalize="joint")
    (ours,) = torch.autograd.grad(loss, logp)
    reward, baseline = (label > 0).double(), 1 - alpha - beta
    (theirs,) = torch.autograd.grad(-((reward - baseline) * logp).mean(), logp)
    torch.testing.assert_close(ours, theirs, atol=1e-15, rtol=0)


@pytest.mark.parametrize("over", ["all", "labelled"])
@pytest.mark.parametrize("normalize", ["joint", "set"])
@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_in_each_state_the_pushes_of_the_objective_add_up_to_nothing_at_its_threshold(
    alpha: float, normalize: str, over: str
):
    counts = torch.tensor([[5, 1, 4], [1, 8, 1], [3, 3, 4], [2, 4, 4]])  # rejects, accepts, unlabelled, of each state
    label = torch.tensor([-1.0, 1.0, 0.0]).repeat(4).repeat_interleave(counts.flatten())
    state = torch.arange(4).repeat_interleave(counts.sum(1))
    chances = counts / counts.sum(1, keepdim=True)
    found = state_collapse(chances[:, :2], alpha, normalize, over=over)
    for place in torch.nonzero(found).flatten().tolist():
        logp = torch.zeros(len(label), requires_grad=True)
        counted = label != 0 if over == "labelled" else label == label
        loss, _ = pmpo(logp, label, -logp[counted].mean(), alpha=alpha, beta=float(found[place]), normalize=normalize)
        (gradient,) = torch.autograd.grad(-loss, logp)
        assert gradient[state == place].sum() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("normalize", ["joint", "set"])
def test_a_state_that_says_nothing_leaves_the_collapse_threshold_and_one_that_says_all_the_bound(normalize: str):
    nothing = state_collapse(torch.tensor([[0.6, 0.3]]).expand(9, 2), 0.2, normalize)
    torch.testing.assert_close(nothing, torch.full((9,), beta_collapse(0.2, 2 / 3, normalize)))
    chances = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1], [0, 0]])
    everything = state_collapse(chances, 0.2, normalize)
    bound = beta_min(0.2, 0.6, normalize, reject_share=0.75)
    torch.testing.assert_close(everything, torch.tensor([bound, bound, bound, 0, 0]))


def test_states_without_labels_do_not_collapse():
    assert state_collapse(torch.zeros(3, 2), 0.5, "joint", over="labelled").tolist() == [0, 0, 0]
