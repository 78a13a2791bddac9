"""DRO and RPO against numbers worked out by hand and the optimum that they regress to."""

import math

import pytest
import torch

from pmpo_offline.objectives import dro, rpo

LABEL = torch.tensor([1.0, -1.0, 0.0])


def test_dro_by_hand():
    # T = 2, V = 1/4: the accept at r = .5 has 1 - .25 - 1, the reject at r = -1 has 0 - .25 + 2
    loss, metrics = dro(torch.tensor([0.5, -1.0, 7.0]), torch.zeros(3), LABEL, torch.full((3,), 0.25), temperature=2.0)
    assert loss.item() == pytest.approx((0.0625 + 1.75**2) / 4)
    assert metrics["value"].item() == pytest.approx(0.25)
    assert metrics["accept_reward"].item() == pytest.approx(1.0)


def test_rpo_takes_the_value_from_the_labels_of_the_context():
    rate = torch.tensor([0.25, 0.5, 1.0])
    value = 0.5 * torch.log(1 - rate + rate * math.exp(2))
    ours = rpo(torch.tensor([0.5, -1.0, 7.0]), torch.zeros(3), LABEL, rate, temperature=0.5)
    theirs = dro(torch.tensor([0.5, -1.0, 7.0]), torch.zeros(3), LABEL, value, temperature=0.5)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_a_context_of_one_label_teaches_to_stay(rate: float):
    logp = torch.tensor([0.3], requires_grad=True)
    label = torch.tensor([2 * rate - 1])
    loss, _ = rpo(logp, torch.zeros(1), label, torch.tensor([rate]), temperature=0.1)
    loss.backward()
    assert loss.item() == pytest.approx((0.1 * 0.3) ** 2 / 2, abs=1e-6)
    assert logp.grad.item() == pytest.approx(0.01 * 0.3, abs=1e-5)


def test_the_loss_is_zero_at_the_optimum_of_the_regularised_reward():
    reference = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    label = torch.tensor([1.0, 1.0, -1.0, -1.0])
    optimum = (reference.log() + (label > 0) / 0.3).log_softmax(-1)
    loss, _ = rpo(optimum, reference.log(), label, torch.full((4,), 0.3).double(), temperature=0.3, weight=reference)
    assert loss.item() == pytest.approx(0, abs=1e-12)
