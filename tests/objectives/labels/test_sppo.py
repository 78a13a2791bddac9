"""SPPO-hard on single labels against the pairwise form of TRL, and its minimum."""

import pytest
import torch

from pmpo_offline.objectives import sppo_unpaired


def test_by_hand():
    # targets of +-1 nat at beta = 1/2: an accept at 3, rejects at 0 and -1
    loss, metrics = sppo_unpaired(
        torch.tensor([3.0, 0.0, -1.0]), torch.zeros(3), torch.tensor([1.0, -1.0, -1.0]), beta=0.5
    )
    assert loss.item() == pytest.approx(4 + 0.5)
    assert metrics["accept_reward"].item() == pytest.approx(1.5)


def test_on_pairs_it_is_the_loss_of_trl():
    chosen, rejected = torch.randn(2, 7, dtype=torch.float64)
    expected = ((chosen - 0.5 / 0.2).square() + (rejected + 0.5 / 0.2).square()).mean()
    label = torch.tensor([1.0] * 7 + [-1.0] * 7)
    loss, _ = sppo_unpaired(torch.cat([chosen, rejected]), torch.zeros(14), label, beta=0.2)
    torch.testing.assert_close(loss, expected)


def test_a_class_comes_to_rest_at_its_target():
    logp = torch.tensor([2.0, -2.0], requires_grad=True)
    loss, _ = sppo_unpaired(logp, torch.zeros(2), torch.tensor([1.0, -1.0]), beta=0.25)
    loss.backward()
    assert loss.item() == 0
    assert logp.grad.tolist() == [0.0, 0.0]
