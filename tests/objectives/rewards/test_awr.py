"""AWR against numbers worked out by hand, and its limits in the temperature."""

import math

import pytest
import torch

from pmpo_offline.objectives import awr, bc, binary_crr

LN2 = math.log(2)
LOGP = torch.tensor([-1.0, -2.0, -6.0])


def test_three_rows_by_hand():
    # temperature 2: weights 2, 1/2, and e^50 clipped to 3
    logp, advantage = LOGP.clone().requires_grad_(), torch.tensor([2 * LN2, -2 * LN2, 100.0], requires_grad=True)
    loss, metrics = awr(logp, advantage, temperature=2.0, max_weight=3.0)
    loss.backward()
    assert loss.item() == pytest.approx(7.0)  # (2 * 1 + .5 * 2 + 3 * 6) / 3
    assert logp.grad.tolist() == pytest.approx([-2 / 3, -1 / 6, -1.0])
    assert advantage.grad is None
    assert metrics["mean_weight"].item() == pytest.approx(5.5 / 3)
    assert metrics["clipped_share"].item() == pytest.approx(1 / 3)
    assert metrics["logp"].item() == pytest.approx(-3.0)


def test_equal_advantages_are_cloning():
    assert torch.equal(awr(LOGP, torch.zeros(3))[0], bc(LOGP)[0])
    torch.testing.assert_close(awr(LOGP, torch.full((3,), LN2))[0], 2 * bc(LOGP)[0])
    torch.testing.assert_close(awr(LOGP, torch.randn(3), temperature=1e8)[0], bc(LOGP)[0])  # hot: all are equal


def test_cold_and_clipped_at_one_is_binary_crr():
    logp, advantage = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        awr(logp, advantage, temperature=1e-6, max_weight=1.0)[0], binary_crr(logp, advantage)[0]
    )


def test_weights_of_any_size_do_not_overflow_and_minus_infinity_leaves_a_row_out():
    logp = torch.tensor([-1.0, -math.inf], requires_grad=True)
    loss, metrics = awr(logp, torch.tensor([1e30, -math.inf]), temperature=1e-3)
    loss.backward()
    assert loss.item() == pytest.approx(10.0)  # 20 * 1 / 2
    assert logp.grad.tolist() == [-10.0, 0.0]
    assert metrics["clipped_share"].item() == 0.5


def test_the_optimum_is_the_reweighted_distribution():
    """Over a table of outcomes drawn from p: pi is proportional to p exp(A / temperature)."""
    p, advantage = torch.tensor([0.2, 0.5, 0.3]).double(), torch.tensor([1.0, -1.0, 0.3]).double()
    logits = (p.log() + advantage / 0.7).requires_grad_()
    awr(logits.log_softmax(-1), advantage, temperature=0.7, weight=p)[0].backward()
    assert logits.grad.abs().max() < 1e-12


def test_no_rows():
    assert awr(torch.zeros(2, 0), torch.zeros(2, 0))[0].tolist() == [0.0, 0.0]
