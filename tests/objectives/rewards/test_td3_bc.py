"""TD3+BC against numbers worked out by hand, and where it comes to rest."""

import math

import pytest
import torch

from pmpo_offline.objectives import td3_bc


def test_two_rows_by_hand():
    # lambda = 2 / ((|1| + |-3|) / 2) = 1, the mean value -1, the mean distance .3
    value, distance = torch.tensor([1.0, -3.0], requires_grad=True), torch.tensor([0.2, 0.4], requires_grad=True)
    loss, metrics = td3_bc(value, distance, alpha=2.0)
    loss.backward()
    assert loss.item() == pytest.approx(1.3)
    assert value.grad.tolist() == [-0.5, -0.5]  # -lambda / n: no gradient through lambda
    assert distance.grad.tolist() == [0.5, 0.5]
    assert metrics["policy_value"].item() == -1.0
    assert metrics["distance"].item() == pytest.approx(0.3)


def test_the_scale_of_the_values_does_not_matter():
    value, distance = torch.randn(2, 3, 9, generator=torch.Generator().manual_seed(0)).abs()
    torch.testing.assert_close(td3_bc(value, distance)[0], td3_bc(1000 * value, distance)[0])
    torch.testing.assert_close(td3_bc(value, torch.zeros(3, 9))[0], torch.full((3,), -2.5))  # its least value


def test_alpha_of_zero_and_values_of_zero_are_cloning():
    value, distance = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(td3_bc(value, distance, alpha=0.0)[0], distance.mean())
    torch.testing.assert_close(td3_bc(torch.zeros(5), distance)[0], distance.mean())


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_it_rests_between_the_recorded_action_and_the_best_one(alpha: float):
    """Q(a) = a, recorded at 0: alpha / |a| = 2 a, so that a = sqrt(alpha / 2)."""
    action = torch.tensor([math.sqrt(alpha / 2)], dtype=torch.float64, requires_grad=True)
    td3_bc(action, action.square(), alpha=alpha)[0].backward()
    assert action.grad.item() == pytest.approx(0.0, abs=1e-12)
