"""MPO against numbers worked out by hand, and its limits in the temperature."""

import math

import pytest
import torch

from pmpo_offline.objectives import bc, mpo

LN3 = math.log(3)
LOGP = torch.tensor([[-1.0, -2.0], [-3.0, -1.0]])
SCORE = torch.tensor([[0.0, 2 * LN3], [5.0, 5.0]])


def test_two_states_by_hand():
    # temperature 2: weights (1/4, 3/4) and (1/2, 1/2); losses 1/4 + 3/2 = 1.75 and 3/2 + 1/2 = 2
    loss, metrics = mpo(LOGP, SCORE, temperature=2.0)
    assert loss.item() == pytest.approx(1.875)
    assert metrics["logp"].item() == pytest.approx(-1.75)
    assert metrics["candidates"].item() == pytest.approx(1.8)  # (1/(1/16 + 9/16) + 2) / 2 = (1.6 + 2) / 2


def test_states_are_weighted():
    loss, _ = mpo(LOGP, SCORE, temperature=2.0, weight=torch.tensor([3.0, 1.0]))
    assert loss.item() == pytest.approx(1.8125)  # (3 * 1.75 + 2) / 4


def test_hot_clones_all_candidates_and_cold_the_best():
    logp, score = torch.randn(2, 7, 4)
    torch.testing.assert_close(mpo(logp, score, temperature=1e6)[0], bc(logp.flatten())[0], rtol=1e-4, atol=1e-5)
    best = logp.gather(-1, score.argmax(-1, keepdim=True)).squeeze(-1)
    torch.testing.assert_close(mpo(logp, score, temperature=1e-6)[0], bc(best)[0])


def test_the_optimum_is_the_reweighted_distribution():
    logits = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64, requires_grad=True)
    score = torch.tensor([[0.0, 1.0, 2.0]], dtype=torch.float64)
    logits.data = score[0] / 0.7  # exp(score / temperature), the E-step's answer from a uniform reference
    loss, _ = mpo(logits.log_softmax(-1)[None], score, temperature=0.7)
    loss.backward()
    assert logits.grad.abs().max() < 1e-12


def test_no_gradient_reaches_the_scores_and_temperature_may_differ():
    score = SCORE.expand(2, 2, 2).clone().requires_grad_()
    loss, _ = mpo(LOGP.expand(2, 2, 2).clone().requires_grad_(), score, temperature=torch.tensor([[2.0], [1e6]]))
    loss.sum().backward()
    assert score.grad is None
    assert loss.tolist() == pytest.approx([1.875, 1.75], rel=1e-5)


def test_a_candidate_of_score_minus_infinity_is_left_out():
    loss, _ = mpo(torch.tensor([[-1.0, -2.0, -math.inf]]), torch.tensor([[1.0, 1.0, -math.inf]]))
    assert loss.item() == pytest.approx(1.5)
