"""The expectile loss by hand, and its minimum beside SciPy's expectiles."""

import numpy as np
import pytest
import torch
from scipy import stats

from pmpo_offline.objectives import expectile_loss


def test_three_rows_by_hand():
    # residuals 2, -1, 0 at .9: .9 * 4, .1 * 1, 0
    value, target = torch.tensor([0.0, 3.0, 1.0], requires_grad=True), torch.tensor([2.0, 2.0, 1.0], requires_grad=True)
    loss = expectile_loss(value, target, 0.9)
    loss.backward()
    assert loss.item() == pytest.approx(3.7 / 3)
    assert value.grad.tolist() == pytest.approx([-2 * 0.9 * 2 / 3, 2 * 0.1 / 3, 0.0])
    assert target.grad is None


def test_at_one_half_it_is_half_the_squared_error():
    value, target = torch.randn(2, 4, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(expectile_loss(value, target, 0.5), (value - target).square().mean(-1) / 2)


def test_gradients_in_double_precision():
    value, target = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda value: expectile_loss(value, target, 0.8), value.requires_grad_())


@pytest.mark.parametrize("level", [0.1, 0.5, 0.7, 0.9])
def test_the_minimum_is_the_expectile(level: float):
    target = torch.from_numpy(np.random.default_rng(0).normal(size=200))
    value = torch.tensor(stats.expectile(target.numpy(), level), dtype=torch.float64, requires_grad=True)
    expectile_loss(value.expand(200), target, level).backward()
    assert value.grad.item() == pytest.approx(0.0, abs=1e-9)


def test_runs_may_differ_in_their_expectile():
    value, target = torch.randn(2, 2, 5, generator=torch.Generator().manual_seed(0))
    together = expectile_loss(value, target, torch.tensor([[0.3], [0.8]]))
    for run, level in enumerate((0.3, 0.8)):
        assert together[run].equal(expectile_loss(value[run], target[run], level))
    with pytest.raises(ValueError, match=r"\(\*runs, 1\)"):
        expectile_loss(value, target, torch.tensor([0.3, 0.8]))
