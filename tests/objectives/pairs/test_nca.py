"""NCA against numbers worked out by hand and against its optimum."""

import math

import pytest
import torch

from pmpo_offline.objectives import dpo, nca

LN2, LN3 = math.log(2), math.log(3)


def test_one_pair_by_hand():
    # beta r = ln3 on the chosen, -ln3 on the rejected: sigmoids 3/4 and 1/4
    loss, metrics = nca(*(torch.tensor([x]) for x in (-1.0 + 2 * LN3, -2.0 - 2 * LN3, -1.0, -2.0)), beta=0.5)
    assert loss.item() == pytest.approx(1.12467)  # -ln .75 - ln(.25)/2 - ln(.75)/2 = .287682 + .693147 + .143841
    assert metrics["accept_reward"].item() == pytest.approx(LN3)
    assert metrics["margin"].item() == pytest.approx(2 * LN3)


def test_at_the_reference():
    chosen, rejected = (torch.tensor([-2.0], requires_grad=True) for _ in range(2))
    loss, _ = nca(chosen, rejected, torch.tensor([-2.0]), torch.tensor([-2.0]), beta=0.4)
    loss.backward()
    assert loss.item() == pytest.approx(2 * LN2)
    assert chosen.grad.item() == pytest.approx(-0.1)  # .4 (-1/2 + 1/4)
    assert rejected.grad.item() == pytest.approx(0.1)  # .4 * 1/4


def test_the_chosen_stop_at_ln_2_and_the_rejected_never():
    """d/dx of -log s(x) - log s(-x)/2 is -s(-x) + s(x)/2 = 0 where s(x) = 2/3."""
    reward = torch.tensor([LN2], dtype=torch.float64)
    zero, beta = torch.zeros(1, dtype=torch.float64), 0.1
    for excess, sign in ((-0.5, -1), (0.0, 0), (0.5, 1)):
        chosen = ((reward + excess) / beta).requires_grad_()
        nca(chosen, zero, zero, zero, beta=beta)[0].backward()
        assert chosen.grad.item() == pytest.approx(0, abs=1e-12) if sign == 0 else sign * chosen.grad.item() > 1e-3
    slopes = []
    for depth in (0.0, 2.0, 5.0):
        rejected = torch.tensor([-depth / beta], dtype=torch.float64, requires_grad=True)
        nca(zero, rejected, zero, zero, beta=beta)[0].backward()
        slopes.append(rejected.grad.item())
    assert slopes[0] > slopes[1] > slopes[2] > 0


def test_both_outcomes_count_by_themselves():
    """A shift of both log-ratios changes nothing for DPO, and something here."""
    # r = ln2 and 0 at beta 1: ln(3/2) + ln(3)/2 + ln(2)/2 = 1.301345;  r = 2 ln2 and ln2: ln(5/4) + ln(5)/2 + ln(3)/2
    pairs = torch.tensor([[-1.0 + LN2], [-2.0], [-1.0], [-2.0]])
    shift = torch.tensor([LN2, LN2, 0.0, 0.0])[:, None]
    assert nca(*pairs, beta=1.0)[0].item() == pytest.approx(1.301345)
    assert nca(*(pairs + shift), beta=1.0)[0].item() == pytest.approx(1.577169)
    torch.testing.assert_close(dpo(*pairs)[0], dpo(*(pairs + shift))[0])


def test_no_pairs():
    """One class alone makes no pairs."""
    assert nca(*torch.zeros(4, 2, 0))[0].tolist() == [0.0, 0.0]
