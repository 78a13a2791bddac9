"""NPO against numbers worked out by hand, gradient ascent, and KTO's and DPO's forms."""

import math

import pytest
import torch

from pmpo_offline.objectives import dpo, npo

LN3 = math.log(3)
REF = torch.tensor([-1.0, -2.0, -3.0], dtype=torch.float64)
LABEL = torch.tensor([1.0, -1.0, -1.0])


def test_by_hand():
    # rejects at beta r = ln 3 and 0: log(1 + 3) and log 2, times 2 / beta
    logp = REF + torch.tensor([7.0, 2 * LN3, 0.0])
    loss, metrics = npo(logp, REF, LABEL, beta=0.5)
    assert loss.item() == pytest.approx(4 * (math.log(4) + math.log(2)) / 2)
    assert metrics["reject_reward"].item() == pytest.approx(LN3 / 2)


def test_it_is_dpo_without_the_chosen_outcome():
    reward = torch.randn(9, dtype=torch.float64)
    zero = torch.zeros(9, dtype=torch.float64)
    pairs, _ = dpo(zero, reward, zero, zero, beta=0.7)
    loss, _ = npo(reward, zero, -torch.ones(9), beta=0.7)
    assert loss.item() == pytest.approx(2 / 0.7 * pairs.item())


def test_a_small_beta_is_gradient_ascent_on_the_rejects():
    logp = (REF + torch.randn(3, dtype=torch.float64)).requires_grad_()
    npo(logp, REF, LABEL, beta=1e-6)[0].backward()
    torch.testing.assert_close(logp.grad, torch.tensor([0.0, 0.5, 0.5]).double(), atol=1e-5, rtol=0)


def test_the_collapse_is_logarithmic_and_not_linear():
    """A table of three outcomes, one rejected: after t steps ascent is t away, NPO log t (the abstract's claim)."""

    def fallen(steps: int, *, ascent: bool) -> float:
        logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        reference = logits.detach().log_softmax(-1)
        for _ in range(steps):
            logp = logits.log_softmax(-1)
            loss = logp[0] if ascent else npo(logp[:1], reference[:1], -torch.ones(1), beta=1.0)[0]
            (gradient,) = torch.autograd.grad(loss, logits)
            logits = (logits - gradient).detach().requires_grad_()
        return float(reference[0] - logits.detach().log_softmax(-1)[0])

    assert fallen(200, ascent=True) / fallen(100, ascent=True) == pytest.approx(2, rel=0.05)
    assert fallen(200, ascent=False) - fallen(100, ascent=False) == pytest.approx(math.log(2), abs=0.05)


def test_the_accepts_can_be_retained():
    logp = REF.clone().requires_grad_()
    alone, _ = npo(logp, REF, LABEL)
    both, _ = npo(logp, REF, LABEL, retain=2.0)
    assert (both - alone).item() == pytest.approx(2.0)  # -2 * -1
    both.backward()
    assert logp.grad[0].item() == pytest.approx(-2.0)
