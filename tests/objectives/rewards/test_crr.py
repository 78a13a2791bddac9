"""Binary CRR against numbers worked out by hand."""

import math

import pytest
import torch

from pmpo_offline.objectives import bc, binary_crr

LOGP = torch.tensor([-1.0, -2.0, -4.0, -0.5])


def test_by_hand_over_all_rows():
    logp = LOGP.clone().requires_grad_()
    loss, metrics = binary_crr(logp, torch.tensor([0.1, 7.0, 0.0, -3.0]))
    loss.backward()
    assert loss.item() == pytest.approx(0.75)  # (1 + 2) / 4: an advantage of zero is left out
    assert logp.grad.tolist() == [-0.25, -0.25, 0.0, 0.0]
    assert metrics["accept_logp"].item() == pytest.approx(-1.5)
    assert metrics["accept_share"].item() == 0.5


def test_only_the_sign_counts():
    advantage = torch.randn(20)
    logp = torch.randn(20)
    torch.testing.assert_close(binary_crr(logp, advantage), binary_crr(logp, 1e20 * advantage))


def test_all_positive_is_cloning_and_none_positive_is_nothing():
    torch.testing.assert_close(binary_crr(LOGP, torch.ones(4))[0], bc(LOGP)[0])
    loss, metrics = binary_crr(LOGP, -torch.ones(4))
    assert loss.item() == metrics["accept_logp"].item() == metrics["accept_share"].item() == 0.0


def test_a_row_that_is_left_out_may_hold_anything_and_no_gradient_reaches_the_advantage():
    logp = torch.tensor([-1.0, -math.inf, math.nan], requires_grad=True)
    advantage = torch.tensor([1.0, -1.0, math.nan], requires_grad=True)
    loss, _ = binary_crr(logp, advantage)
    loss.backward()
    assert loss.item() == pytest.approx(1 / 3)
    assert logp.grad.tolist() == pytest.approx([-1 / 3, 0.0, 0.0])
    assert advantage.grad is None
