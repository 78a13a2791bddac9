"""IPO, with and without lengths, against numbers worked out by hand and against its closed-form minimum."""

import math

import pytest
import torch

from pmpo_offline.objectives import ipo, ipo_length_normalized

PAIRS = torch.tensor([[-1.0, -2.0], [-4.0, -3.0], [-2.0, -2.0], [-3.0, -6.0]])  # chosen, rejected, and the reference's


def test_two_pairs_by_hand():
    # pair 0: r = 1 and -1, margin 2;  pair 1: r = 0 and 3, margin -3;  at beta 1/4 the target is 2
    loss, metrics = ipo(*PAIRS, beta=0.25)
    assert loss.item() == pytest.approx(12.5)  # (0^2 + 5^2) / 2
    assert metrics["margin"].item() == pytest.approx(-0.125)  # .25 (2 - 3) / 2
    assert metrics["accept_reward"].item() == pytest.approx(0.125)  # .25 (1 + 0) / 2
    assert metrics["reject_reward"].item() == pytest.approx(0.25)  # .25 (-1 + 3) / 2
    assert metrics["accuracy"].item() == 0.5


def test_gradient_by_hand():
    chosen, rejected = PAIRS[0].clone().requires_grad_(), PAIRS[1].clone().requires_grad_()
    ipo(chosen, rejected, *PAIRS[2:], beta=0.25)[0].backward()
    assert chosen.grad.tolist() == pytest.approx([0.0, -5.0])  # 2 (margin - 2) / 2 pairs
    assert rejected.grad.tolist() == pytest.approx([0.0, 5.0])


def test_lengths_by_hand():
    # pair 0: 1/2 - (-1)/4 = 3/4;  pair 1: 0/1 - 3/3 = -1;  at beta 1/4 the target is 2
    loss, metrics = ipo_length_normalized(*PAIRS, torch.tensor([2, 1]), torch.tensor([4, 3]), beta=0.25)
    assert loss.item() == pytest.approx(5.28125)  # (1.25^2 + 3^2) / 2 = (1.5625 + 9) / 2
    assert metrics["margin"].item() == pytest.approx(-0.03125)  # .25 (.75 - 1) / 2


def test_lengths_of_one_are_the_paper_form_and_shorter_ones_count_as_one():
    one, none = torch.ones(2), torch.zeros(2, dtype=torch.long)
    assert torch.equal(ipo(*PAIRS)[0], ipo_length_normalized(*PAIRS, one, one)[0])
    assert torch.equal(ipo(*PAIRS)[0], ipo_length_normalized(*PAIRS, none, none)[0])


@pytest.mark.parametrize("beta", [0.1, 0.5, 2.0])
def test_the_minimum_is_a_margin_of_one_over_two_beta(beta: float):
    """And it is reached, where DPO's margin grows without end."""
    margin = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([margin], lr=0.25)
    zero = torch.zeros(1, dtype=torch.float64)
    for _ in range(60):
        optimizer.zero_grad()
        loss, metrics = ipo(margin, zero, zero, zero, beta=beta)
        loss.backward()
        optimizer.step()
    assert margin.item() == pytest.approx(1 / (2 * beta), abs=1e-9)
    assert metrics["margin"].item() == pytest.approx(0.5)


def test_contradicting_pairs_shrink_the_margin_in_closed_form():
    """With p of the pairs one way round, the minimum is E[+-1] / (2 beta) = (2 p - 1) / (2 beta) (Azar et al.)."""
    beta, share = 0.3, 0.75
    h = torch.tensor([(2 * share - 1) / (2 * beta)], dtype=torch.float64, requires_grad=True)
    both_ways, zero = torch.cat([h, 0 * h]), torch.zeros(2, dtype=torch.float64)
    weight = torch.tensor([share, 1 - share])
    loss, _ = ipo(both_ways, both_ways.flip(0), zero, zero, beta=beta, weight=weight)
    loss.backward()
    assert abs(h.grad.item()) < 1e-12


def test_no_pairs():
    """One class alone makes no pairs."""
    assert ipo(*torch.zeros(4, 2, 0))[0].tolist() == [0.0, 0.0]
    assert ipo_length_normalized(*torch.zeros(6, 2, 0))[0].tolist() == [0.0, 0.0]


def test_a_length_may_be_anything_on_a_pair_of_weight_zero():
    length = torch.tensor([2.0, math.nan])
    chosen = PAIRS[0].clone().requires_grad_()
    ipo_length_normalized(chosen, *PAIRS[1:], length, length, weight=torch.tensor([1.0, 0.0]))[0].backward()
    assert chosen.grad.isfinite().all()
