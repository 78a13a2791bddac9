"""AsymRE against PMPO, which it is, numbers worked out by hand, and its limit."""

import math

import pytest
import torch

from pmpo_offline.objectives import asymre, bc_accepts, pmpo

LOGP = torch.tensor([-1.0, -2.0, -4.0, -3.0], dtype=torch.float64)
LABEL = torch.tensor([1.0, -1.0, -1.0, 0.0])


def test_by_hand():
    # V = 1/3 - .1 of the three labelled rows: weights 1 - V = 23/30 and -V = -7/30
    loss, metrics = asymre(LOGP, LABEL)
    assert metrics["baseline"].item() == pytest.approx(7 / 30)
    assert loss.item() == pytest.approx((23 / 30 * 1 - 7 / 30 * 6) / 3)
    loss, _ = asymre(LOGP, LABEL, baseline=0.5, relative_to="zero")
    assert loss.item() == pytest.approx((0.5 * 1 - 0.5 * 6) / 3)


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.1), (0.0, 1.3), (0.9, 0.5), (1.0, 0.0)])
def test_it_is_pmpo_with_every_row_labelled(alpha: float, beta: float):
    """V = 1 - alpha - beta: equal gradients, and equal values, since the divergence is here -E[log pi]."""
    logp, label = torch.randn(2, 50, dtype=torch.float64).requires_grad_(), torch.randn(2, 50).sign()
    ours, _ = asymre(logp, label, baseline=1 - alpha - beta, relative_to="zero")
    theirs, _ = pmpo(logp, label, -logp.mean(-1), alpha=alpha, beta=beta)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(loss.sum(), logp)[0] for loss in (ours, theirs)))


def test_at_the_ends():
    """V = 0 clones the accepts at the pace of their share; V = 1 only pushes rejects."""
    cloned, _ = asymre(LOGP[:3], LABEL[:3], baseline=0.0, relative_to="zero")
    assert cloned.item() == pytest.approx(bc_accepts(LOGP[:3], LABEL[:3])[0].item() / 3)
    pushed, _ = asymre(LOGP[:3], LABEL[:3], baseline=1.0, relative_to="zero")
    assert pushed.item() == pytest.approx(-6 / 3)


def test_a_baseline_above_the_mean_reward_collapses_and_one_below_does_not():
    """The paper's theorem on a table of four outcomes, two of them accepted: P_a = .3."""
    reference = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    label = torch.tensor([1.0, 1.0, -1.0, -1.0])

    def ascend(baseline: float) -> torch.Tensor:
        logits = reference.log().requires_grad_()
        for _ in range(500):
            loss, _ = asymre(logits.log_softmax(-1), label, baseline=baseline, relative_to="zero", weight=reference)
            (gradient,) = torch.autograd.grad(loss, logits)
            logits = (logits - 20 * gradient).detach().requires_grad_()
        return logits.detach().softmax(-1)

    # c(y) = .1 * .85, .2 * .85, < 0, < 0 and C = .15, so that max(0, c - .0525) / C sums to one
    expected = torch.tensor([0.0325, 0.1175, 0, 0], dtype=torch.float64) / 0.15
    torch.testing.assert_close(ascend(0.15), expected, atol=1e-3, rtol=0)
    assert ascend(0.4).max() > 0.999


def test_only_a_baseline_of_at_most_one_is_allowed():
    with pytest.raises(ValueError, match=r"a number of 1 or less, not 1\.5"):
        asymre(LOGP, LABEL, baseline=1.5)
    assert math.isfinite(asymre(LOGP, LABEL, baseline=-3.0)[0])
