"""APO-down against numbers worked out by hand."""

import math

import pytest
import torch

from pmpo_offline.objectives import apo_down

LN3 = math.log(3)


def test_by_hand():
    # beta r(chosen) = -ln 3, beta r(rejected) = -2 ln 3: sigmoid(-ln 3) + 1 - sigmoid(ln 3)
    chosen = torch.tensor([-2 * LN3], requires_grad=True)
    rejected = torch.tensor([-4 * LN3], requires_grad=True)
    loss, metrics = apo_down(chosen, rejected, torch.zeros(1), torch.zeros(1), beta=0.5)
    loss.backward()
    assert loss.item() == pytest.approx(0.25 + 0.25)
    assert chosen.grad.item() == pytest.approx(0.5 * 3 / 16 - 0.5 * 3 / 16, abs=1e-7)  # lowered as much as raised
    assert rejected.grad.item() == pytest.approx(0.5 * 3 / 16)
    assert metrics["margin"].item() == pytest.approx(LN3)


def test_both_outcomes_of_a_wide_pair_sink():
    chosen = torch.tensor([1.0], requires_grad=True)
    rejected = torch.tensor([-6.0], requires_grad=True)
    apo_down(chosen, rejected, torch.zeros(1), torch.zeros(1), beta=1.0)[0].backward()
    assert chosen.grad.item() > 0
    assert rejected.grad.item() > 0
