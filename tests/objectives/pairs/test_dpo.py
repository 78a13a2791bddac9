"""DPO against numbers worked out by hand."""

import math

import pytest
import torch

from pmpo_offline.objectives import dpo

LN3 = math.log(3)  # sigmoid(ln 3) = 3/4


def test_two_pairs_by_hand():
    # pair 0: r = ln3 and -ln3, margin 2 ln3;  pair 1: r = -ln3 and ln3, margin -2 ln3;  at beta 1/2: +ln3, -ln3
    loss, metrics = dpo(
        torch.tensor([-1.0 + LN3, -2.0 - LN3]),
        torch.tensor([-3.0 - LN3, -4.0 + LN3]),
        torch.tensor([-1.0, -2.0]),
        torch.tensor([-3.0, -4.0]),
        beta=0.5,
    )
    assert loss.item() == pytest.approx(0.836988)  # (-ln .75 - ln .25) / 2 = (.287682 + 1.386294) / 2
    assert metrics["margin"].item() == pytest.approx(0.0, abs=1e-6)
    assert metrics["accuracy"].item() == 0.5
    assert metrics["accept_logp"].item() == pytest.approx(-1.5)
    assert metrics["reject_logp"].item() == pytest.approx(-3.5)


def test_rewards_are_beta_times_the_log_ratio():
    _, metrics = dpo(*(torch.tensor([x]) for x in (-1.0, -5.0, -3.0, -4.0)), beta=0.1)
    assert metrics["accept_reward"].item() == pytest.approx(0.2)  # .1 * (-1 + 3)
    assert metrics["reject_reward"].item() == pytest.approx(-0.1)  # .1 * (-5 + 4)
    assert metrics["margin"].item() == pytest.approx(0.3)
    assert metrics["accuracy"].item() == 1.0


def test_at_the_reference_the_loss_is_ln2_and_the_gradient_half_beta():
    chosen, rejected = (torch.tensor([-2.0], requires_grad=True) for _ in range(2))
    loss, _ = dpo(chosen, rejected, torch.tensor([-2.0]), torch.tensor([-2.0]), beta=0.3)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert (chosen.grad.item(), rejected.grad.item()) == pytest.approx((-0.15, 0.15))


def test_a_shift_of_both_log_ratios_changes_nothing():
    pairs = torch.randn(4, 10, dtype=torch.float64)
    shift = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64)[:, None]
    torch.testing.assert_close(dpo(*pairs)[0], dpo(*(pairs + shift))[0])


def test_no_pairs():
    assert dpo(*torch.zeros(4, 2, 0))[0].tolist() == [0.0, 0.0]
