"""Closed forms of a linear head against autograd through the plain formulas, in double precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pmpo_offline.policies.language import scoring
from pmpo_offline.policies.language.scoring import is_closed, kl, logp_alone, logp_and_slope

WORDS, WIDTH, TOKENS = 37, 6, 11


@pytest.fixture(params=[False, True], ids=["plain", "bias"])
def head(request) -> nn.Linear:
    torch.manual_seed(0)
    found = nn.Linear(WIDTH, WORDS, bias=request.param).double().requires_grad_(False)
    found.weight.mul_(5)
    return found


@pytest.fixture
def said() -> tuple[Tensor, Tensor, Tensor]:
    """States of two models, and the words."""
    generator = torch.Generator().manual_seed(1)
    states, others = torch.randn(2, TOKENS, WIDTH, generator=generator, dtype=torch.float64)
    return states.requires_grad_(), others, torch.randint(WORDS, (TOKENS,), generator=generator)


def plainly(head: nn.Linear, states: Tensor, target: Tensor) -> Tensor:
    return head(states).log_softmax(-1).gather(-1, target[:, None])[:, 0]


def gradient(value: Tensor, states: Tensor) -> Tensor:
    weight = torch.linspace(-1, 2, len(value), dtype=value.dtype)
    return torch.autograd.grad((weight * value).sum(), states)[0]


@pytest.mark.parametrize("chunk", [1, 5, 32])
def test_log_probabilities_and_their_slopes(head, said, chunk, monkeypatch):
    monkeypatch.setattr(scoring, "CLOSED_CHUNK", chunk)
    states, _, target = said
    found, slope = logp_and_slope(head, states, target)
    expected = plainly(head, states, target)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(logp_alone(head, states, target), expected.detach())
    assert not slope.requires_grad
    torch.testing.assert_close(slope, torch.autograd.grad(expected.sum(), states, retain_graph=True)[0])
    torch.testing.assert_close(gradient(found, states), gradient(expected, states))


def test_divergences_both_ways_and_the_gradient_of_the_forward_one(head, said):
    states, others, target = said
    log_p, log_q = head(states).log_softmax(-1), head(others).log_softmax(-1)
    logp, slope = logp_and_slope(head, states, target)
    known, known_slope = logp_and_slope(head, others, target)
    reverse = (log_p.exp() * (log_p - log_q)).sum(-1)
    torch.testing.assert_close(kl(logp, slope, states, known, others), reverse)
    forward = (log_q.exp() * (log_q - log_p)).sum(-1)
    found = kl(known, known_slope, others, logp, states)
    torch.testing.assert_close(found, forward)
    torch.testing.assert_close(gradient(found, states), gradient(forward, states))


def test_logits_that_would_overflow_alone(head, said, monkeypatch):
    monkeypatch.setattr(scoring, "CLOSED_CHUNK", 1)
    states, _, target = said
    states = (states * 1e3).detach().requires_grad_()
    found, _ = logp_and_slope(head, states, target)
    torch.testing.assert_close(found, plainly(head, states, target))


def test_single_precision_loses_little(head, said):
    """The divergence of states a hundredth apart, a difference of numbers a hundred thousand times as large."""
    states, others, target = said
    others = states.detach() + 0.01 * others
    exact = kl(*logp_and_slope(head, states, target), states, logp_alone(head, others, target), others)
    single, states, others = head.float(), states.detach().float(), others.float()
    found = kl(*logp_and_slope(single, states, target), states, logp_alone(single, others, target), others)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-5)


def test_no_tokens(head):
    nothing = torch.zeros(0, WIDTH, dtype=torch.float64)
    logp, slope = logp_and_slope(head, nothing, torch.zeros(0, dtype=torch.int64))
    assert logp.shape == (0,)
    assert slope.shape == (0, WIDTH)


def test_what_is_not_treated_so(head, said):
    states = said[0]
    assert is_closed(head, states)
    assert not is_closed(head, states.float())
    assert not is_closed(head.bfloat16(), states.bfloat16())
    assert not is_closed(nn.Sequential(head.double()), states)
    with torch.autocast("cpu"):
        assert not is_closed(head.float(), states.float())
    assert not is_closed(head.double().requires_grad_(), states)
