"""Divergences estimated from samples: weighted by the distribution they are the closed forms, and rows by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Normal

from pmpo_offline.objectives.divergences import (
    categorical_alpha,
    categorical_renyi,
    gaussian_alpha,
    gaussian_renyi,
    sampled_alpha,
    sampled_kl,
    sampled_renyi,
)


@pytest.mark.parametrize("order", [0.0, 1e-5, 0.3, 0.5, 0.8, 1.0])
def test_estimates_weighted_by_the_distribution_are_the_closed_form(order: float):
    """Every outcome once, with the weight p: the sampled form is then an expectation, values and gradients."""
    log_p, logits = torch.randn(2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).log_softmax(-1)
    logits.requires_grad_()
    q = logits.log_softmax(-1)
    for closed, sampled in ((categorical_alpha, sampled_alpha), (categorical_renyi, sampled_renyi)):
        values = closed(log_p, q, order), sampled(log_p, q, order, log_p.exp())
        torch.testing.assert_close(*values, rtol=1e-9, atol=1e-14)
        gradients = (torch.autograd.grad(value, logits, retain_graph=True)[0] for value in values)
        torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("order", [0.0, 0.5, 1.0])
def test_estimates_from_samples(order: float):
    p, q = Normal(0.5, 0.8), Normal(0.3, 0.9)
    y = 0.5 + 0.8 * torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    moments = [torch.tensor([x]) for x in (0.5, math.log(0.8), 0.3, math.log(0.9))]
    rows = p.log_prob(y), q.log_prob(y)
    assert sampled_alpha(*rows, order).item() == pytest.approx(gaussian_alpha(*moments, order).item(), rel=0.02)
    assert sampled_renyi(*rows, order).item() == pytest.approx(gaussian_renyi(*moments, order).item(), abs=3e-3)


@given(rows=st.lists(st.tuples(st.floats(-30, 5), st.floats(-30, 5)), min_size=1, max_size=5), order=st.floats(0, 1))
def test_every_row_of_the_alpha_estimate_counts_zero_or_more(rows: list[tuple[float, float]], order: float):
    logp_p, logp_q = torch.tensor(rows).double().T
    each = sampled_alpha(logp_p.unsqueeze(-1), logp_q.unsqueeze(-1), order)
    assert (each >= -1e-14 * (logp_q - logp_p).exp().clamp(min=1)).all()
    torch.testing.assert_close(sampled_alpha(logp_p, logp_q, order), each.mean())


def test_estimates_by_hand():
    rows = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0])  # u = -.5 and 1
    low, high = math.exp(-0.5), math.e
    assert sampled_alpha(*rows, 1.0).item() == pytest.approx((low - 0.5 + high - 2) / 2)  # e^u - 1 - u
    assert sampled_alpha(*rows, 0.0).item() == pytest.approx((-0.5 * low - low + 1 + 1) / 2)  # u e^u - e^u + 1
    # 2 ((e^u - 1) - 2 (e^(u/2) - 1)) = 2 (e^(u/2) - 1)^2
    halves = 2 * (math.exp(-0.25) - 1) ** 2 + 2 * (math.exp(0.5) - 1) ** 2
    assert sampled_alpha(*rows, 0.5).item() == pytest.approx(halves / 2)
    assert sampled_renyi(*rows, 1.0) == sampled_kl(*rows)
    assert sampled_renyi(*rows, 0.5).item() == pytest.approx(-2 * math.log((math.exp(-0.25) + math.exp(0.5)) / 2))
    weight = torch.tensor([1.0, 3.0])
    assert sampled_alpha(*rows, 1.0, weight).item() == pytest.approx((low - 0.5 + 3 * (high - 2)) / 4)
    assert sampled_renyi(*rows, 0.5, weight).item() == pytest.approx(
        -2 * math.log((math.exp(-0.25) + 3 * math.exp(0.5)) / 4)
    )


@pytest.mark.parametrize("rubbish", [-math.inf, math.inf, math.nan])
@pytest.mark.parametrize("order", [0.0, 1e-5, 0.5, 1.0])
def test_rows_of_weight_zero_may_hold_anything(order: float, rubbish: float):
    clean = torch.tensor([[-1.0, -2.0], [-1.5, -1.0]])
    dirty = torch.cat([clean, torch.full((2, 1), rubbish)], -1).requires_grad_()
    for function in (sampled_alpha, sampled_renyi):
        value = function(*dirty, order, torch.tensor([1.0, 1.0, 0.0]))
        (gradient,) = torch.autograd.grad(value, dirty)
        torch.testing.assert_close(value, function(*clean, order))
        assert gradient[:, 2].tolist() == [0.0, 0.0]
        assert function(*dirty, order, torch.zeros(3)) == 0  # nothing to average
