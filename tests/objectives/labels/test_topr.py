"""TOPR against the authors' update, and its bound."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pmpo_offline.objectives import topr

REF = torch.tensor([-1.0, -2.0, -3.0, -1.0], dtype=torch.float64)
LABEL = torch.tensor([1.0, -1.0, -1.0, 0.0])


def test_by_hand():
    # ratios of 1 (an accept), 1/2 and e (rejects): -(-1) + 1/2 + (1 + 1), over three rows
    logp = REF + torch.tensor([0.0, -math.log(2), 1.0, 9.0])
    loss, metrics = topr(logp, REF, LABEL)
    assert loss.item() == pytest.approx(3.5 / 3)
    assert metrics["reject_weight"].item() == pytest.approx(0.75)  # (1/2 + 1) / 2


def test_the_gradient_is_the_update_of_the_paper():
    """-R min(pi / mu, 1) with the weight held fixed on rejects, R alone on accepts."""
    logp = (REF + 2 * torch.randn(5, 4, dtype=torch.float64)).requires_grad_()
    loss, _ = topr(logp, REF, LABEL)
    (ours,) = torch.autograd.grad(loss.sum(), logp)
    weight = (logp - REF).exp().clamp(max=1).detach()
    theirs = -(torch.where(LABEL > 0, 1, weight) * LABEL * logp).sum(-1) / 3
    torch.testing.assert_close(ours, torch.autograd.grad(theirs.sum(), logp)[0])


@given(st.floats(-1e6, 1e6))
def test_rejects_alone_are_bounded_and_have_no_push_left_far_away(ratio: float):
    """Proposition 3.2, without a divergence."""
    logp = torch.tensor([ratio], dtype=torch.float64, requires_grad=True)
    loss, _ = topr(logp, torch.zeros(1, dtype=torch.float64), -torch.ones(1))
    loss.backward()
    assert loss >= 0
    assert 0 <= logp.grad.item() <= 1
    assert ratio > -50 or logp.grad.item() < 1e-20
