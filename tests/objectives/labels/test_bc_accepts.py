"""Cloning of the accepts against numbers worked out by hand, and against what it is a case of."""

import pytest
import torch

from pmpo_offline.objectives import bc, bc_accepts, binary_crr, pmpo

LOGP = torch.tensor([-1.0, -2.0, -4.0, -0.5])
LABEL = torch.tensor([1.0, 1.0, -1.0, 0.0])


def test_by_hand():
    loss, metrics = bc_accepts(LOGP, LABEL)
    assert loss.item() == pytest.approx(1.5)
    assert metrics["accept_logp"].item() == pytest.approx(-1.5)
    assert metrics["accept_share"].item() == 0.5


def test_weighted():
    loss, metrics = bc_accepts(LOGP, LABEL, weight=torch.tensor([1.0, 3.0, 1.0, 0.0]))
    assert loss.item() == pytest.approx(1.75)  # (1 + 3 * 2) / 4
    assert metrics["accept_share"].item() == pytest.approx(0.8)


def test_rejects_alone_teach_nothing():
    logp = LOGP.clone().requires_grad_()
    loss, metrics = bc_accepts(logp, -LABEL.abs())
    loss.backward()
    assert loss.item() == metrics["accept_logp"].item() == metrics["accept_share"].item() == 0.0
    assert not logp.grad.any()


def test_it_is_what_others_are_without_rejects():
    label = torch.randn(64).sign()
    logp = torch.randn(64)
    ours, metrics = bc_accepts(logp, label)
    torch.testing.assert_close(ours, bc(logp[label > 0])[0])
    torch.testing.assert_close(ours, pmpo(logp, label, torch.tensor(0.0), alpha=1.0, beta=0.0, normalize="set")[0])
    torch.testing.assert_close(ours * metrics["accept_share"], binary_crr(logp, label)[0])
