"""APO-zero on single labels against KTO and the formula of TRL."""

import torch

from pmpo_offline.objectives import apo_zero_unpaired, kto


def test_it_is_kto_whose_reference_point_is_zero():
    logp, ref = torch.randn(2, 3, 20, dtype=torch.float64)
    label = torch.randint(-1, 2, (3, 20)).double()
    weights = {"beta": 0.7, "desirable_weight": 2.0, "undesirable_weight": 0.5}
    loss, metrics = apo_zero_unpaired(logp, ref, label, **weights)
    expected, theirs = kto(logp, ref, label, kl=torch.zeros(3), **weights)
    torch.testing.assert_close(loss, expected)
    assert metrics.keys() == theirs.keys() - {"kl"}


def test_it_is_the_loss_of_trl():
    """Its KTO trainer: the mean of both classes' losses, concatenated."""
    logp, ref = torch.randn(2, 9, dtype=torch.float64)
    label = torch.tensor([1.0] * 4 + [-1.0] * 5)
    ratio = 0.3 * (logp - ref)
    expected = torch.cat([1 - ratio[:4].sigmoid(), ratio[4:].sigmoid()]).mean()
    torch.testing.assert_close(apo_zero_unpaired(logp, ref, label, beta=0.3)[0], expected)
