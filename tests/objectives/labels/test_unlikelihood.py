"""Unlikelihood against numbers worked out by hand, and where probabilities approach 0 and 1."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pmpo_offline.objectives import bc_accepts, unlikelihood

LABEL = torch.tensor([1.0, -1.0, -1.0, 0.0])


def reject(logp: float | Tensor, dtype: torch.dtype = torch.float64) -> tuple[float, float]:
    """The penalty of one reject, and its slope in log p."""
    leaf = torch.tensor([float(logp)], dtype=dtype, requires_grad=True)
    loss, _ = unlikelihood(leaf, torch.tensor([-1.0]), alpha=0.0)
    loss.backward()
    return loss.item(), leaf.grad.item()


def test_by_hand():
    # accept p = 1/2; rejects p = 3/4 and 1/4: -ln(1/4) and -ln(3/4); an unlabelled row
    logp = torch.tensor([0.5, 0.75, 0.25, 0.9]).log().requires_grad_()
    loss, metrics = unlikelihood(logp, LABEL, alpha=0.4)
    loss.backward()
    assert loss.item() == pytest.approx(0.779452)  # .4 * .693147 + .6 * (1.386294 + .287682) / 2
    assert logp.grad.tolist() == pytest.approx([-0.4, 0.9, 0.1, 0.0])  # .3 p / (1 - p): .3 * 3, .3 / 3
    assert metrics["reject_penalty"].item() == pytest.approx(0.836988)
    assert metrics["accept_logp"].item() == pytest.approx(-math.log(2))


def test_one_class_and_no_class():
    logp = torch.tensor([0.5, 0.5]).log()
    assert unlikelihood(logp, torch.ones(2), alpha=0.25)[0].item() == pytest.approx(0.25 * math.log(2))
    assert unlikelihood(logp, -torch.ones(2), alpha=0.25)[0].item() == pytest.approx(0.75 * math.log(2))
    assert unlikelihood(logp, torch.zeros(2))[0].item() == 0.0
    torch.testing.assert_close(unlikelihood(logp, torch.ones(2), alpha=1.0)[0], bc_accepts(logp, torch.ones(2))[0])


@given(st.floats(-700, -1e-6))
def test_it_is_exact_on_both_sides(logp: float):
    """In the form that keeps its digits: log(1 - p) loses them all where p is small, log(-expm1) where it is large."""
    exact = -math.log1p(-math.exp(logp)) if logp < -1 else -math.log(-math.expm1(logp))
    value, slope = reject(logp)
    assert value == pytest.approx(exact, rel=1e-12, abs=1e-320)
    assert slope == pytest.approx(1 / math.expm1(-logp), rel=1e-12, abs=1e-320)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sure_reject_has_a_finite_penalty_that_leads_away(dtype: torch.dtype):
    values, slopes = zip(*(reject(x, dtype) for x in (-1e-5, -1e-6, -1e-7, 0.0, 1.0)), strict=True)
    assert list(values) == sorted(values)
    assert slopes[-1] == slopes[-2] == slopes[-3] == pytest.approx(1e6, rel=1e-5)
    assert slopes[0] == pytest.approx(1e5, rel=1e-4)
    assert values[3] == pytest.approx(values[1] + 1, rel=1e-5)  # the tangent: 1e6 * 1e-6


def test_the_gradient_in_logits_is_at_most_one():
    """d log p / d logit is 1 - p, so that the slopes cancel: p / (1 - p) (1 - p) = p."""
    for sure in (0.0, 5.0, 12.0):
        logits = torch.tensor([sure, 0.0], dtype=torch.float64, requires_grad=True)
        unlikelihood(logits.log_softmax(-1)[:1], torch.tensor([-1.0]), alpha=0.0)[0].backward()
        assert logits.grad[0].item() == pytest.approx(torch.sigmoid(torch.tensor(sure)).item(), rel=1e-5)


def test_impossible_rejects_cost_nothing():
    assert reject(-math.inf) == (0.0, 0.0)


def test_it_is_bounded_below_without_a_divergence():
    """Over a table: an outcome that is only rejected ends at probability zero, and the loss stays finite."""
    accept, rejected = torch.tensor([0.5, 0.0, 0.5]).double(), torch.tensor([0.0, 1.0, 0.0]).double()
    label, weight = torch.tensor([1.0] * 3 + [-1.0] * 3), torch.cat([accept, rejected])
    sunk = [
        unlikelihood(torch.tensor([0.0, depth, 0.0]).double().log_softmax(-1).repeat(2), label, weight=weight)[0]
        for depth in (0.0, -10.0, -1e3, -1e6)
    ]
    assert sunk[0] > sunk[1] > sunk[2] == sunk[3] == pytest.approx(0.5 * math.log(2))
