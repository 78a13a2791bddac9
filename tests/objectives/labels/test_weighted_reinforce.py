"""Weighted REINFORCE against numbers worked out by hand and PMPO."""

import pytest
import torch

from pmpo_offline.objectives import pmpo, weighted_reinforce

LABEL = torch.tensor([1.0, -1.0, -1.0, 0.0])


def test_by_hand():
    loss, metrics = weighted_reinforce(torch.tensor([-2.0, -3.0, -6.0, -9.0]), LABEL, positive_weight=0.5)
    assert loss.item() == pytest.approx((0.5 * 2 - 9) / 3)
    assert metrics["reject_logp"].item() == pytest.approx(-4.5)


@pytest.mark.parametrize("positive", [0.0, 0.1, 1.0])
def test_up_to_a_factor_it_is_pmpo_without_a_divergence(positive: float):
    logp = torch.randn(3, 4, dtype=torch.float64)
    ours, _ = weighted_reinforce(logp, LABEL, positive_weight=positive)
    theirs, _ = pmpo(logp, LABEL, torch.zeros(3), alpha=positive / (1 + positive), beta=0.0)
    torch.testing.assert_close(ours, (1 + positive) * theirs)
