"""AOT on single labels against TRL's sorted pairs, and against the integral over quantiles."""

import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from pmpo_offline.objectives import aot_unpaired


def test_with_equal_counts_it_is_the_loss_of_trl():
    chosen, rejected = torch.randn(2, 3, 8, dtype=torch.float64)
    label = torch.tensor([1.0] * 8 + [-1.0] * 8).expand(3, -1)
    loss, metrics = aot_unpaired(torch.cat([chosen, rejected], -1), torch.zeros(3, 16), label, beta=0.4)
    gap = chosen.sort(-1).values - rejected.sort(-1).values
    torch.testing.assert_close(loss, -logsigmoid(0.4 * gap).mean(-1))
    torch.testing.assert_close(metrics["dominated"], (gap > 0).double().mean(-1))


def test_one_against_two_by_hand():
    """The accept is compared with the lower reject over one half of the ranks and with the upper over the other."""
    loss, metrics = aot_unpaired(
        torch.tensor([0.0, -math.log(3), math.log(3)]), torch.zeros(3), torch.tensor([1.0, -1.0, -1.0]), beta=1.0
    )
    assert loss.item() == pytest.approx((-math.log(0.75) - math.log(0.25)) / 2)
    assert metrics["dominated"].item() == pytest.approx(0.5)


def test_weighted_rows_against_the_integral_over_quantiles():
    generator = torch.Generator().manual_seed(0)
    reward = torch.randn(30, generator=generator, dtype=torch.float64)
    weight = torch.rand(30, generator=generator, dtype=torch.float64)
    label = torch.where(torch.arange(30) < 11, 1.0, -1.0)
    level = (torch.arange(100_000).double() + 0.5) / 100_000

    def quantile(rows: torch.Tensor) -> torch.Tensor:
        ordered, index = reward[rows].sort()
        upto = weight[rows][index].cumsum(0) / weight[rows].sum()
        return ordered[torch.searchsorted(upto, level)]

    integral = -logsigmoid(quantile(label > 0) - quantile(label < 0)).mean()
    loss, _ = aot_unpaired(reward, torch.zeros(30), label, beta=1.0, weight=weight)
    assert loss.item() == pytest.approx(integral.item(), rel=1e-4)
