"""MPO's temperatures and trust regions: numbers by hand, budgets that are spent, constraints that are met."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from pmpo_offline.objectives.divergences import gaussian_kl_decoupled
from pmpo_offline.objectives.rewards.duals import kl_over_epsilon, state_temperature, temperature_loss, trust_region

LN2, LN3 = math.log(2), math.log(3)


def spent(score: Tensor, temperature: Tensor) -> Tensor:
    """KL(softmax(score / temperature) || uniform), by definition."""
    score = score.double()
    q = ((score - score.amax(-1, keepdim=True)) / temperature.unsqueeze(-1)).softmax(-1)
    return math.log(score.shape[-1]) + torch.xlogy(q, q).sum(-1)


# state_temperature


def test_two_candidates_by_hand():
    # weights 3/4 and 1/4 are a divergence of ln 2 - H(1/4) = .693147 - .562335 = .130812, at a gap of ln 3
    epsilon = LN2 + 0.75 * math.log(0.75) + 0.25 * math.log(0.25)
    found = state_temperature(torch.tensor([[0.0, LN3], [6 * LN3, 0.0]], dtype=torch.float64), epsilon)
    assert found.tolist() == pytest.approx([1.0, 6.0])


scores = st.lists(
    st.one_of(st.floats(-5, 5), st.floats(-1e12, 1e12), st.integers(-2, 2).map(float)), min_size=2, max_size=6
)


@given(score=scores, share=st.floats(1e-6, 1 - 1e-9))
@settings(max_examples=300)
def test_the_budget_is_spent_wherever_it_can_be(score: list[float], share: float):
    rows = torch.tensor([score], dtype=torch.float64)
    best = (rows == rows.amax()).sum().item()
    assume(best < len(score))
    below = rows.amax() - rows
    assume(below[below > 0].min() > 1e-100 * below.amax())  # nearer ties are ties, as the docstring says
    epsilon = share * math.log(len(score) / best)
    assert spent(rows, state_temperature(rows, epsilon)).item() == pytest.approx(epsilon, abs=1e-5)


@pytest.mark.parametrize("spoil", ["nothing", "near ties", "scales", "all but one equal"])
@pytest.mark.parametrize("candidates", [2, 4, 20])
def test_difficult_scores_are_solved_within_the_fixed_number_of_steps(spoil: str, candidates: int):
    generator = torch.Generator().manual_seed(candidates)
    score = torch.randn(2000, candidates, generator=generator, dtype=torch.float64)
    if spoil == "near ties":
        score[:, 0] = score[:, 1:].amax(-1) + 1e-12
    elif spoil == "scales":
        score = 10 ** (12 * score)
    elif spoil == "all but one equal":
        score = torch.cat([score[:, :1].abs() + 1e-3, torch.zeros(2000, candidates - 1)], dim=1)
    best = (score == score.amax(-1, keepdim=True)).sum(-1)
    share = torch.rand(2000, generator=generator, dtype=torch.float64) ** 4
    for part in (share, 1 - share * 1e-3):
        epsilon = part.clamp(1e-8, 1 - 1e-9) * (candidates / best).log()
        found = state_temperature(score.unsqueeze(1), epsilon.unsqueeze(1)).squeeze(1)  # states as runs, each its own
        assert found.isfinite().all()
        assert (spent(score, found) - epsilon).abs().max() < 1e-5


@given(score=scores, epsilon=st.floats(1e-3, 5))
def test_temperatures_are_positive_and_scale_with_the_scores(score: list[float], epsilon: float):
    rows = torch.tensor([score], dtype=torch.float64)
    found = state_temperature(rows, epsilon)
    assert found.isfinite().all()
    assert (found > 0).all()
    if len(set(score)) > 1:
        torch.testing.assert_close(state_temperature(8 * rows, epsilon), 8 * found, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_cannot_be_spent_is_greedy(dtype: torch.dtype):
    """Two of four share the best score: ln 2 is the most there is. Where all are equal there is nothing to spend."""
    score = torch.tensor([[3.0, 1.0, 3.0, 2.9], [3.0, 1.0, 3.0, 2.9], [7.0, 7.0, 7.0, 7.0]], dtype=dtype)
    for epsilon in (LN2, 1.0, 100.0):
        found = state_temperature(score, epsilon)
        q = (score.double() / found.unsqueeze(-1)).softmax(-1)
        assert q[0].tolist() == [0.5, 0.0, 0.5, 0.0]
        assert q[2].tolist() == [0.25, 0.25, 0.25, 0.25]
        assert found[2] == 1
    nearly = state_temperature(score, LN2 - 1e-9)
    assert spent(score, nearly)[0].item() == pytest.approx(LN2 - 1e-9, abs=1e-11)


def test_extreme_scores_and_scores_that_are_left_out():
    huge = torch.tensor([[0.0, 1e-30, -1e30], [1e30, -1e30, 0.0]])
    assert (spent(huge, state_temperature(huge, 0.2)) - 0.2).abs().max() < 1e-5
    left_out = torch.tensor([[0.0, 1.0, -math.inf]])
    torch.testing.assert_close(state_temperature(left_out, 0.2), state_temperature(left_out[:, :2], 0.2))
    single = torch.tensor([[3.0, -math.inf]])
    assert state_temperature(single, 0.2).tolist() == [1.0]


def test_budgets_may_differ_from_run_to_run():
    score = torch.randn(5, 4, dtype=torch.float64)
    together = state_temperature(score, torch.tensor([[0.1], [0.5]]))
    torch.testing.assert_close(
        together, torch.stack([state_temperature(score, e) for e in (0.1, 0.5)]), rtol=1e-6, atol=0
    )


# temperature_loss


def test_dual_by_hand():
    # exp(score / 2) = 1, 3 and 2, 2: 2 (.1 + (ln 2 + ln 2) / 2)
    score = torch.tensor([[0.0, 2 * LN3], [2 * LN2, 2 * LN2]])
    assert temperature_loss(score, 2.0, 0.1).item() == pytest.approx(0.2 + 2 * LN2)
    assert temperature_loss(score, 2.0, 0.1, weight=torch.tensor([1.0, 0.0])).item() == pytest.approx(0.2 + 2 * LN2)


def test_the_derivative_of_the_dual_is_what_is_left_of_the_budget():
    score = torch.randn(2, 6, 4, dtype=torch.float64)
    temperature = torch.tensor([[0.5], [2.0]], dtype=torch.float64, requires_grad=True)
    temperature_loss(score, temperature, 0.2).sum().backward()
    left = 0.2 - spent(score, temperature.detach().expand(2, 6)).mean(-1)
    torch.testing.assert_close(temperature.grad.squeeze(-1), left)


def test_the_minimum_of_the_dual_spends_the_budget_on_average():
    """In one state it is the temperature of that state: three runs of one."""
    score = torch.randn(3, 1, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_temperature = torch.zeros(3, 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=100, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = temperature_loss(score, log_temperature.exp(), 0.1).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(log_temperature.detach().exp(), state_temperature(score, 0.1), rtol=1e-4, atol=0)


def test_the_dual_of_large_scores_and_of_none():
    assert temperature_loss(torch.tensor([[1e30, -1e30]]), 1e-3, 0.1).isfinite()
    assert temperature_loss(torch.full((2, 3, 4), math.nan), 1.0, 0.1, weight=torch.zeros(2, 3)).tolist() == [0.0, 0.0]
    left_out = torch.tensor([[0.0, 1.0, -math.inf]])
    torch.testing.assert_close(temperature_loss(left_out, 0.5, 0.1), temperature_loss(left_out[:, :2], 0.5, 0.1))


# trust_region


def test_penalty_and_dual_by_hand():
    kl, multiplier = torch.tensor([1.0, 3.0], requires_grad=True), torch.tensor([5.0], requires_grad=True)
    penalty, dual = trust_region(kl, multiplier, 0.5)
    assert penalty.item() == pytest.approx(10.0)  # 5 * 2
    assert dual.item() == pytest.approx(-7.5)  # 5 (.5 - 2)
    (penalty + dual).backward()
    assert kl.grad.tolist() == [2.5, 2.5]  # of the penalty alone: 5 / 2 states
    assert multiplier.grad.tolist() == [-1.5]  # of the dual alone: it rises while the constraint is broken
    assert kl_over_epsilon(kl, 0.5).item() == pytest.approx(4.0)
    assert kl_over_epsilon(kl, 0.5, weight=torch.tensor([1.0, 0.0])).item() == pytest.approx(2.0)


def test_each_run_has_its_own_multiplier_and_constraint():
    kl = torch.tensor([[1.0, 3.0], [1.0, 3.0]])
    penalty, dual = trust_region(kl, torch.tensor([[5.0], [1.0]]), torch.tensor([[0.5], [4.0]]))
    assert penalty.tolist() == [10.0, 2.0]
    assert dual.tolist() == [-7.5, 2.0]
    assert kl_over_epsilon(kl, torch.tensor([[0.5], [4.0]])).tolist() == [4.0, 0.5]


@pytest.mark.parametrize("function", [trust_region, temperature_loss])
def test_settings_of_another_shape_are_refused(function):
    with pytest.raises(ValueError, match=r"\(\*runs, 1\)"):
        function(torch.ones(3, 4), torch.ones(4), 0.1)


def test_mean_and_deviation_are_held_each_by_its_own_multiplier():
    """A Gaussian drawn to (3, e^-2) by squares rests at (.2, e^-.1) where both constraints are spent, by hand."""
    mean, log_std = (torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (0.2, -0.1))
    of_mean, of_deviation = gaussian_kl_decoupled(torch.zeros(1), torch.zeros(1), mean, log_std)
    # .2^2 / 2 and (e^.2 - 1 - .2) / 2, whose slopes are .2 and 1 - e^.2 = -.221403
    kl, epsilon = torch.stack([of_mean, of_deviation]).unsqueeze(-1), torch.tensor([[0.02], [0.010701]])
    # what pulls, 2 (3 - .2) = 5.6 and -2 (2 - .1) = -3.8, over those slopes
    multiplier = torch.tensor([[28.0], [17.163]], requires_grad=True)
    penalty, dual = trust_region(kl, multiplier, epsilon)
    ((mean - 3).square() + (log_std + 2).square() + (penalty + dual).sum()).backward()
    assert mean.grad.item() == pytest.approx(0, abs=1e-3)
    assert log_std.grad.item() == pytest.approx(0, abs=1e-3)
    assert multiplier.grad.squeeze(-1).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert kl_over_epsilon(kl, epsilon).tolist() == pytest.approx([1, 1], abs=1e-4)
