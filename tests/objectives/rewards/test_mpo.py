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
    assert metrics["temperature"].item() == 2.0
    assert metrics["target_kl"].item() == pytest.approx(0.065406, abs=1e-6)  # (ln 2 + ln(1/4)/4 + 3 ln(3/4)/4 + 0) / 2


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


# A budget for each state


def test_each_state_spends_its_budget_whatever_its_scale():
    generator = torch.Generator().manual_seed(0)
    logp, score = torch.randn(2, 50, 4, generator=generator, dtype=torch.float64)
    loss, metrics = mpo(logp, score, epsilon=0.3, temperature=123.0)  # ignored
    assert metrics["target_kl"].item() == pytest.approx(0.3, abs=1e-7)
    scale, shift = 10 ** torch.linspace(-6, 6, 50).double(), torch.linspace(-1e3, 1e3, 50).double()
    torch.testing.assert_close(mpo(logp, score * scale[:, None] + shift[:, None], epsilon=0.3)[0], loss)


def test_a_small_budget_clones_all_candidates_and_a_large_one_the_best():
    generator = torch.Generator().manual_seed(1)
    logp, score = torch.randn(2, 7, 4, generator=generator, dtype=torch.float64)
    best = logp.gather(-1, score.argmax(-1, keepdim=True)).squeeze(-1)
    torch.testing.assert_close(mpo(logp, score, epsilon=1e-12)[0], bc(logp.flatten())[0], rtol=1e-5, atol=1e-5)
    assert torch.equal(mpo(logp, score, epsilon=5.0)[0], bc(best)[0])  # log 4 is all that four candidates have


def test_equal_scores_are_cloned_and_ties_of_the_best_shared():
    logp = torch.tensor([[-1.0, -2.0, -6.0], [-1.0, -2.0, -6.0]])
    loss, metrics = mpo(logp, torch.tensor([[5.0, 5.0, 5.0], [1.0, 1.0, 0.0]]), epsilon=1.0)  # of log 1, log 3/2
    assert loss.item() == pytest.approx(2.25)  # (3 + 1.5) / 2
    assert metrics["candidates"].item() == pytest.approx(2.5)
    assert metrics["target_kl"].item() == pytest.approx(0.202733, abs=1e-6)  # ln(3/2) / 2


def test_budgets_may_differ_from_run_to_run_and_zero_asks_for_the_temperature():
    score = SCORE + torch.tensor([[0.0, 0.0], [0.1, 0.0]])
    epsilon, temperature = torch.tensor([[0.0], [0.2], [0.5]]), torch.tensor([[2.0], [9.0], [9.0]])
    together = mpo(LOGP, score, epsilon=epsilon, temperature=temperature)
    alone = [mpo(LOGP, score, temperature=2.0), mpo(LOGP, score, epsilon=0.2), mpo(LOGP, score, epsilon=0.5)]
    torch.testing.assert_close(together[0], torch.stack([loss for loss, _ in alone]))
    for name, value in together[1].items():
        torch.testing.assert_close(value, torch.stack([metrics[name] for _, metrics in alone]))


def test_a_left_out_candidate_is_no_part_of_the_budget():
    logp, score = torch.tensor([[-1.0, -2.0, -math.inf]]), torch.tensor([[0.0, 1.0, -math.inf]])
    loss, metrics = mpo(logp, score, epsilon=0.1)
    torch.testing.assert_close(loss, mpo(logp[:, :2], score[:, :2], epsilon=0.1)[0])
    assert metrics["target_kl"].item() == pytest.approx(0.1, abs=1e-6)
    assert mpo(logp, score)[1]["target_kl"].item() == pytest.approx(0.110944, abs=1e-6)  # ln 2 - .582203


def test_scores_far_from_zero_keep_their_differences():
    far = torch.tensor([[10000.0, 10001.0]])
    torch.testing.assert_close(mpo(LOGP[:1], far, temperature=0.7), mpo(LOGP[:1], far - 10000, temperature=0.7))
