"""SSPO on single labels against numbers worked out by hand, and the term of the authors' code."""

import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from pmpo_offline.objectives import bco, sspo

LN3 = math.log(3)
ZERO = torch.zeros(4)
LABEL = torch.tensor([1.0, -1.0, 0.0, 0.0])


def test_by_hand():
    # rewards of 2 ln3, 0 (threshold ln3), then ln3 above and below the threshold
    logp = torch.tensor([2 * LN3, 0.0, 2 * LN3, 0.0], requires_grad=True)
    loss, metrics = sspo(logp, ZERO, LABEL, beta=1.0, gamma=0.25, prior=0.8)
    loss.backward()
    sure = -math.log(0.75)
    assert loss.item() == pytest.approx(0.25 * 2 * sure + 0.75 * (0.8 * sure + 0.2 * sure) / 2)
    # sigmoid'(ln 3) slopes of 1/4: the unlabelled rows are pushed to their own sides
    assert logp.grad.tolist() == pytest.approx([-1 / 16, 1 / 16, -0.75 * 0.8 / 8, 0.75 * 0.2 / 8])
    assert metrics["shift"].item() == pytest.approx(LN3)
    assert metrics["pseudo_accepts"].item() == 0.5


def test_with_labelled_rows_alone_it_is_bco():
    logp, label = torch.randn(20, dtype=torch.float64), torch.randn(20).sign()
    loss, _ = sspo(logp, torch.zeros(20), label, beta=0.4, gamma=1.0)
    torch.testing.assert_close(loss, bco(logp, torch.zeros(20), label, beta=0.4)[0])


def test_the_term_of_the_unlabelled_rows_is_the_authors():
    """Their `u_losses`: prior times -log sigmoid above the threshold, else 1 - prior and the other sign."""
    logp, shift = torch.randn(30, dtype=torch.float64), torch.tensor(0.2)
    loss, _ = sspo(logp, torch.zeros(30), torch.zeros(30), beta=0.7, gamma=0.0, prior=0.3, shift=shift)
    gain = 0.7 * logp - shift
    expected = torch.where(gain > 0, -0.3 * logsigmoid(gain), -0.7 * logsigmoid(-gain)).mean()
    torch.testing.assert_close(loss, expected)
