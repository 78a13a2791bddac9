"""Kullback-Leibler divergences against hand-computed numbers, torch.distributions and one another."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Independent, Normal, kl_divergence

from pmpo_offline.objectives.divergences import categorical_kl, gaussian_kl, gaussian_kl_decoupled, sampled_kl


def test_categorical_by_hand_in_both_directions():
    p, q = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()
    assert categorical_kl(p, q).item() == pytest.approx(0.143841)  # .5 ln 2 + .5 ln(2/3) = .346574 - .202733
    assert categorical_kl(q, p).item() == pytest.approx(0.130812)  # .25 ln(1/2) + .75 ln(3/2) = -.173287 + .304099


def test_categorical_without_support():
    narrow, wide = torch.tensor([1.0, 0.0]).log(), torch.tensor([0.25, 0.75]).log().requires_grad_()
    forward = categorical_kl(narrow, wide)
    forward.backward()
    assert forward.item() == pytest.approx(math.log(4))
    assert wide.grad.tolist() == [-1.0, 0.0]
    assert categorical_kl(wide, narrow).item() == math.inf


def test_gaussian_by_hand_in_both_directions():
    wide, unit = (torch.tensor([1.0]), torch.tensor([2.0]).log()), (torch.tensor([0.0]), torch.tensor([0.0]))
    assert gaussian_kl(*wide, *unit).item() == pytest.approx(1.306853)  # (2^2 + 1^2)/2 - 1/2 - ln 2
    assert gaussian_kl(*unit, *wide).item() == pytest.approx(0.443147)  # (1 + 1)/8 - 1/2 + ln 2


def test_gaussian_agrees_with_torch_distributions():
    mean_p, log_std_p, mean_q, log_std_q = torch.randn(4, 5, 7, 3, dtype=torch.float64)
    p, q = Normal(mean_p, log_std_p.exp()), Normal(mean_q, log_std_q.exp())
    torch.testing.assert_close(
        gaussian_kl(mean_p, log_std_p, mean_q, log_std_q), kl_divergence(Independent(p, 1), Independent(q, 1))
    )


@given(st.floats(-1e-3, 1e-3))
def test_gaussian_is_exact_for_close_deviations(step: float):
    zero = torch.zeros(1)
    kl = gaussian_kl(zero, torch.tensor([step]), zero, zero).item()
    assert kl == pytest.approx(step**2, rel=3e-3, abs=1e-10)  # (e^2d - 1 - 2d)/2 = d^2 + O(d^3)
    assert kl >= -1e-10


def test_the_closed_forms_are_the_limit_of_the_sampled_form():
    generator = torch.Generator().manual_seed(0)
    p, q = Normal(0.5, 0.8), Normal(0.0, 1.2)
    samples = 0.5 + 0.8 * torch.randn(200_000, generator=generator)
    closed = gaussian_kl(*(torch.tensor([x]) for x in (0.5, math.log(0.8), 0.0, math.log(1.2))))
    torch.testing.assert_close(sampled_kl(p.log_prob(samples), q.log_prob(samples)), closed, atol=5e-3, rtol=0)


def test_the_gradient_of_the_forward_divergence_is_that_of_cloning_the_reference():
    """grad KL(pi_ref || pi) = -E_ref[grad log pi], and the sampled form weighted by pi_ref *is* the closed form."""
    reference = torch.randn(6, dtype=torch.float64).softmax(-1)
    logits = torch.randn(6, dtype=torch.float64, requires_grad=True)
    logp = logits.log_softmax(-1)
    closed, sampled = categorical_kl(reference.log(), logp), sampled_kl(reference.log(), logp, weight=reference)

    def gradient(value: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(value, logits, retain_graph=True)[0]

    torch.testing.assert_close(closed, sampled)
    torch.testing.assert_close(gradient(closed), -gradient((reference * logp).sum()))
    torch.testing.assert_close(gradient(closed), gradient(sampled))
    # Without the reference's density: another value, the same gradient.
    torch.testing.assert_close(gradient(closed), gradient(sampled_kl(torch.zeros(6), logp, weight=reference)))


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_the_same_identity_of_gaussians_by_quadrature(shift: float):
    """grad KL(pi_ref || pi) = -E_ref[grad log pi] in the mean and in the log-deviation, and for the reference's own."""
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.hermite_e.hermegauss(20))
    mean_ref, log_std_ref = torch.tensor([0.3]).double(), torch.tensor([-0.4]).double()
    y = mean_ref + log_std_ref.exp() * nodes  # E_ref[f] = sum_k w_k f(y_k), exact for polynomials up to degree 39

    mean, log_std = (x.clone().requires_grad_() for x in (mean_ref + shift, log_std_ref + shift))
    logp = Normal(mean, log_std.exp()).log_prob(y)
    cloning = torch.autograd.grad(-(weights * logp).sum() / weights.sum(), (mean, log_std), retain_graph=True)
    closed = torch.autograd.grad(gaussian_kl(mean_ref, log_std_ref, mean, log_std), (mean, log_std))
    sampled = torch.autograd.grad(sampled_kl(torch.zeros(20), logp, weight=weights), (mean, log_std))

    torch.testing.assert_close(closed, cloning, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sampled, cloning, rtol=1e-12, atol=1e-12)


def test_decoupled_parts_by_hand_and_as_kl_with_the_other_moment_fixed():
    wide, unit = (torch.tensor([1.0]), torch.tensor([2.0]).log()), (torch.tensor([0.0]), torch.tensor([0.0]))
    parts = gaussian_kl_decoupled(*wide, *unit)
    assert [part.item() for part in parts] == pytest.approx([0.125, 0.806853])  # (1/2)^2 / 2 and 2^2/2 - 1/2 - ln 2

    mean_p, log_std_p, mean_q, log_std_q = torch.randn(4, 5, 7, 3, dtype=torch.float64)
    of_mean, of_deviation = gaussian_kl_decoupled(mean_p, log_std_p, mean_q, log_std_q)
    torch.testing.assert_close(of_mean, gaussian_kl(mean_p, log_std_p, mean_q, log_std_p))
    torch.testing.assert_close(of_deviation, gaussian_kl(mean_p, log_std_p, mean_p, log_std_q))
    whole = gaussian_kl(mean_p, log_std_p, mean_q, log_std_p)
    torch.testing.assert_close(sum(gaussian_kl_decoupled(mean_p, log_std_p, mean_q, log_std_p)), whole)


def test_decoupled_parts_reach_one_moment_each():
    rows = [x.requires_grad_() for x in torch.randn(4, 3, 2, dtype=torch.float64)]
    of_mean, of_deviation = gaussian_kl_decoupled(*rows)
    _, _, mean_q, log_std_q = rows
    assert torch.autograd.grad(of_mean.sum(), log_std_q, retain_graph=True, allow_unused=True) == (None,)
    assert torch.autograd.grad(of_deviation.sum(), mean_q, allow_unused=True) == (None,)
    assert torch.autograd.gradcheck(lambda *x: gaussian_kl_decoupled(*x), rows)


def test_sampled_by_hand():
    difference = sampled_kl(torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -4.0]))
    assert difference.item() == pytest.approx(1.25)  # (.5 + 2) / 2
    weighted = sampled_kl(torch.tensor([-1.0, -math.inf]), torch.tensor([-1.5, -math.inf]), torch.tensor([2.0, 0.0]))
    assert weighted.item() == pytest.approx(0.5)


@given(st.lists(st.tuples(st.floats(-20, 20), st.floats(-20, 20)), min_size=1, max_size=8))
def test_categorical_is_never_negative_and_zero_at_itself(logits: list[tuple[float, float]]):
    p, q = torch.tensor(logits, dtype=torch.float64).T.log_softmax(-1)
    assert categorical_kl(p, q) >= -1e-12
    assert categorical_kl(p, p) == 0


def test_gradients_in_double_precision():
    rows = torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: gaussian_kl(*x), rows)
    assert torch.autograd.gradcheck(
        lambda p, q: categorical_kl(p.log_softmax(-1), q.log_softmax(-1)), tuple(rows[:2].detach().requires_grad_())
    )


def test_half_precision_is_widened():
    rows = torch.randn(4, 3, 2).bfloat16()
    assert (
        gaussian_kl(*rows).dtype
        == categorical_kl(*rows[:2]).dtype
        == sampled_kl(*rows[:2, :, 0]).dtype
        == torch.float32
    )
