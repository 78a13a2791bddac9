"""Behaviour cloning against numbers worked out by hand."""

import pytest
import torch

from pmpo_offline.objectives import bc


def test_minus_the_mean():
    loss, metrics = bc(torch.tensor([-1.0, -2.0, -6.0]))
    assert loss.item() == pytest.approx(3.0)
    assert metrics["logp"].item() == pytest.approx(-3.0)


def test_weighted():
    loss, _ = bc(torch.tensor([-1.0, -2.0, -6.0]), weight=torch.tensor([1.0, 2.0, 0.0]))
    assert loss.item() == pytest.approx(5 / 3)  # (1*1 + 2*2 + 0*6) / 3


def test_no_rows():
    assert bc(torch.zeros(3, 0))[0].tolist() == [0.0, 0.0, 0.0]
