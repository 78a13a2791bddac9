"""Conditional cloning against numbers worked out by hand, and its limit."""

import pytest
import torch

from pmpo_offline.objectives import bc, conditional

LABEL = torch.tensor([1.0, -1.0, 0.0, 0.0])


def test_by_hand():
    logp = torch.tensor([-1.0, -2.0, -3.0, -4.0])
    given = torch.tensor([-5.0, -6.0, -70.0, -80.0])  # of unlabelled rows it is not used
    loss, metrics = conditional(logp, given, LABEL, condition_weight=2.0)
    assert loss.item() == pytest.approx(10 / 4 + 2 * 11 / 4)
    assert (metrics["logp"].item(), metrics["accept_logp"].item(), metrics["reject_logp"].item()) == (-2.5, -5, -6)


def test_without_labels_it_is_cloning():
    logp = torch.randn(3, 9, dtype=torch.float64)
    loss, _ = conditional(logp, logp, torch.zeros(3, 9))
    torch.testing.assert_close(loss, bc(logp)[0])


def test_given_accept_the_minimum_is_the_reference_among_accepts():
    """A table of three outcomes, two accepted, and a policy with logits of its own for each label."""
    reference = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    label = torch.tensor([1.0, 1.0, -1.0])
    logits = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)  # hidden, accept, reject
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(300):
        hidden, accept, reject = logits.log_softmax(-1)
        loss, _ = conditional(hidden, torch.where(label > 0, accept, reject), label, weight=reference)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    hidden, accept, _ = logits.detach().softmax(-1)
    torch.testing.assert_close(hidden, reference, atol=1e-3, rtol=0)
    torch.testing.assert_close(accept, torch.tensor([0.4, 0.6, 0.0], dtype=torch.float64), atol=2e-3, rtol=0)
