"""Minibatches that lack a class: both thresholds on beta, against stochastic gradient descent on a table."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pmpo_offline.objectives import pmpo
from pmpo_offline.objectives.stability import (
    Minibatch,
    beta_collapse,
    beta_min,
    coefficients,
    gaussian_beta_min,
    limit_policy,
    remaining_noise,
)

REFERENCE = torch.tensor([0.1, 0.3, 0.2, 0.4], dtype=torch.float64)
GOOD = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
ROWS, LABELLED, ALPHA = 8, 0.05, 0.3
ACCEPT, REJECT = LABELLED * GOOD, LABELLED * (1 - GOOD)
MINIBATCH = Minibatch(ROWS, LABELLED)


def test_presence_by_hand():
    assert Minibatch(256, 0.001).presence(0.001) == pytest.approx(0.226, abs=5e-4)
    assert Minibatch(2, 0.5).presence(0.5) == 0.75
    assert Minibatch(8, 1.0).presence(1.0) == 1
    assert Minibatch(8, 0.0).presence(0.0) == 0
    assert Minibatch(256, 0.2).presence(0.2) == 1, "exactly: bounds of densely labelled data keep their last bit"


@pytest.mark.parametrize("normalize", ["joint", "set"])
@pytest.mark.parametrize("over", ["all", "labelled"])
def test_factors_are_what_an_average_over_drawn_minibatches_is(normalize: str, over: str):
    """A policy that gives every outcome log-probability -1: each term of the loss is then its own weight."""
    generator = torch.Generator().manual_seed(0)
    count = 100_000
    outcome = torch.multinomial(REFERENCE, count * ROWS, replacement=True, generator=generator).view(count, ROWS)
    labelled = torch.rand(count, ROWS, generator=generator) < LABELLED
    label = torch.where(labelled, 2 * GOOD[outcome] - 1, 0).double()
    logp = -torch.ones(count, ROWS).double()
    divergence = label.abs().amax(-1) if over == "labelled" else torch.ones(count).double()
    share = float(REFERENCE @ REJECT) / LABELLED
    accept, reject = (
        float((pmpo(logp, label, 0 * divergence, alpha=alpha, normalize=normalize)[0].mean() / divergence.mean()).abs())
        for alpha in (1.0, 0.0)
    )
    factors = Minibatch(ROWS, LABELLED, over).factors(normalize, share)
    weights = (1.0, 1.0) if normalize == "set" else (1 - share, share)
    assert accept == pytest.approx(weights[0] * factors[0], rel=0.03)
    assert reject == pytest.approx(weights[1] * factors[1], rel=0.03)


def descend(beta: Tensor, normalize: str, steps: int = 1500) -> Tensor:
    """Stochastic gradient descent from the reference, (R,) values of beta at once; the mean policy of the second half.

    The rate falls, so that the noise of single minibatches averages out.
    """
    generator = torch.Generator().manual_seed(1)
    logits = REFERENCE.log().repeat(len(beta), 1).requires_grad_()
    settings = {"alpha": ALPHA, "beta": beta.unsqueeze(-1), "normalize": normalize}
    mean = torch.zeros(len(beta), len(REFERENCE)).double()
    for step in range(steps):
        outcome = torch.multinomial(REFERENCE, ROWS, replacement=True, generator=generator).expand(len(beta), -1)
        label = torch.where(torch.rand(ROWS, generator=generator) < LABELLED, 2 * GOOD[outcome] - 1, 0)
        logp = logits.log_softmax(-1)
        loss, _ = pmpo(logp.gather(1, outcome), label, -(REFERENCE * logp).sum(-1), **settings)
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        with torch.no_grad():
            logits -= 0.5 / (1 + step / 100) ** 0.5 * gradient / beta.unsqueeze(-1)
            if step >= steps // 2:
                mean += logits.softmax(-1) / (steps - steps // 2)
    return mean


@pytest.mark.parametrize("normalize", ["joint", "set"])
def test_descent_ends_where_the_minibatch_thresholds_say(normalize: str):
    mass = float(REFERENCE @ (1 - GOOD))
    whole = beta_min(ALPHA, mass, normalize, mass)
    bound = beta_min(ALPHA, mass, normalize, mass, minibatch=MINIBATCH)
    assert bound == pytest.approx(whole * MINIBATCH.factors(normalize, mass)[1])
    assert bound < 0.4 * whole, "few minibatches hold a label here"
    beta = torch.tensor([0.7, 1.5, 2.5]).double() * bound  # the whole data's bound would call all of them unbounded
    assert beta.max() < whole
    ends = descend(beta, normalize)
    rejected = ends @ (1 - GOOD)
    assert rejected[0] < 0.05
    for end, b in zip(ends, beta.tolist(), strict=True):
        limit = limit_policy(
            coefficients(REFERENCE, ACCEPT, REJECT, alpha=ALPHA, beta=b, normalize=normalize, rows=ROWS)
        )
        torch.testing.assert_close(end, limit, atol=0.06, rtol=0)
    assert rejected[1] > 0.1


@pytest.mark.parametrize("normalize", ["joint", "set"])
def test_the_collapse_threshold_falls_alike(normalize: str):
    mass = float(REFERENCE @ (1 - GOOD))
    collapse = beta_collapse(ALPHA, mass, normalize, minibatch=MINIBATCH)
    settings = {"alpha": ALPHA, "normalize": normalize, "rows": ROWS}
    total = coefficients(REFERENCE, ACCEPT, REJECT, beta=collapse, **settings).sum()
    assert float(total) == pytest.approx(0, abs=1e-12)
    assert 0 < collapse < beta_collapse(ALPHA, mass, normalize)


def test_a_divergence_over_the_labelled_rows_is_absent_with_them():
    labelled = Minibatch(ROWS, LABELLED, "labelled")
    assert beta_min(0.3, 0.6, "joint", 0.6, minibatch=labelled) == beta_min(0.3, 0.6, "joint", 0.6)
    # set: (1 - alpha) / P_r, times P(a reject) / P(a label)
    by_hand = 0.7 / 0.6 * (1 - 0.97**8) / (1 - 0.95**8)
    assert beta_min(0.3, 0.6, "set", 0.6, minibatch=labelled) == pytest.approx(by_hand)


def test_the_gaussians_bound_scales_too():
    generator = torch.Generator().manual_seed(2)
    y = torch.randn(4000, 2, generator=generator)
    parts = y[:100] + 1, y[100:200], y
    whole = gaussian_beta_min(*parts, alpha=0.3, normalize="joint")
    minibatch = Minibatch(16, 0.05)
    # a and r have one factor, and the bound is homogeneous in them.
    assert gaussian_beta_min(*parts, alpha=0.3, normalize="joint", minibatch=minibatch) == pytest.approx(
        whole * minibatch.presence(0.05)
    )


@pytest.mark.parametrize("normalize", ["joint", "set"])
@pytest.mark.parametrize(("kept_accepts", "kept_rejects"), [(1.0, 1.0), (0.3, 1.0), (1.0, 0.5)])
def test_flipped_and_dropped_labels_over_labelled_rows(normalize: str, kept_accepts: float, kept_rejects: float):
    """The divergence holds an outcome by its labels that are left: the bound is where its coefficient vanishes."""
    flipped = torch.where(GOOD > 0, 0.8, 0.2).double()  # how often an outcome is accepted
    accept, reject = kept_accepts * flipped, kept_rejects * (1 - flipped)
    accepted, rejected = REFERENCE * accept, REFERENCE * reject
    left = float((accepted + rejected).sum())
    share = float(rejected.sum()) / left
    noise = remaining_noise(0.2, kept_accepts / kept_rejects)
    bound = beta_min(ALPHA, share, normalize, share, noise=noise)
    labels = coefficients(REFERENCE, accept, reject, alpha=ALPHA, beta=0.0, normalize=normalize)
    least = (-labels / ((accepted + rejected) / left)).max()
    assert bound == pytest.approx(float(least))
