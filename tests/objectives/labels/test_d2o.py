"""D2O against numbers worked out by hand and DPO."""

import math

import pytest
import torch

from pmpo_offline.objectives import d2o, dpo

LN3 = math.log(3)


def test_by_hand():
    # own outcomes at 2 ln3 and 0, the reject at 0: -log sigmoid(ln 3); the accept is not used
    own = torch.tensor([[2 * LN3, 0.0], [9.0, 9.0]])
    loss, metrics = d2o(torch.zeros(2), torch.zeros(2), torch.tensor([-1.0, 1.0]), own, torch.zeros(2, 2), beta=1.0)
    assert loss.item() == pytest.approx(-math.log(0.75))
    assert metrics["own_reward"].item() == pytest.approx(LN3)


def test_with_one_outcome_of_its_own_it_is_dpo():
    logp, own = torch.randn(2, 7, dtype=torch.float64)
    zero = torch.zeros(7, dtype=torch.float64)
    loss, _ = d2o(logp, zero, -torch.ones(7), own.unsqueeze(-1), zero.unsqueeze(-1), beta=0.3)
    torch.testing.assert_close(loss, dpo(own, logp, zero, zero, beta=0.3)[0])
