"""Critics that know nothing of the episode they judge."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pmpo_offline import on_progress
from pmpo_offline.data import Rows
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.training import CriticSettings, fit_critic

QUICK = CriticSettings(folds=3, hidden=(16,), updates=15, sweeps=3, batch=32)


def synthetic(lengths: list[int], truncated: list[bool], seed: int = 0) -> Rows:
    """Random episodes; observations (N, 4), actions (N, 2)."""
    n, generator = sum(lengths), torch.Generator().manual_seed(seed)
    episode = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    last = torch.cat([episode[1:] != episode[:-1], torch.tensor([True])])
    cut = torch.tensor(truncated)[episode]
    following = torch.arange(1, n + 1)
    following[last] = n + torch.arange(len(lengths))
    return Rows(
        states=torch.randn(n + len(lengths), 4, generator=generator),
        next_row=following,
        action=torch.randn(n, 2, generator=generator).clamp(-1, 1),
        reward=torch.randn(n, generator=generator),
        terminated=last & ~cut,
        truncated=last & cut,
        episode=episode,
        score=torch.full((n,), torch.nan),
        label=torch.zeros(n),
    )


MIXED = synthetic([4, 7, 3, 8, 5, 6, 4, 7, 6], [False, True, True] * 3)


def test_advantage_is_return_less_value() -> None:
    estimates = fit_critic(MIXED, QUICK, seed=0)
    assert estimates.value.shape == estimates.returns.shape == (len(MIXED),)
    torch.testing.assert_close(estimates.advantage, estimates.returns - estimates.value)
    assert torch.isfinite(estimates.advantage).all()
    ends = MIXED.terminated
    torch.testing.assert_close(estimates.returns[ends], MIXED.reward[ends])
    cut = MIXED.truncated
    assert (estimates.returns[cut] != MIXED.reward[cut]).all(), "a cut episode is bootstrapped, not treated as terminal"


def judged(rows: Rows, episode: int, settings: CriticSettings = QUICK) -> tuple[Tensor, Tensor]:
    """V and Q of one episode's rows; the actions are always those of `MIXED`."""
    estimates = fit_critic(rows, settings, seed=0)
    row = torch.nonzero(rows.episode == episode).squeeze(1)
    return estimates.value[row], estimates.action_value(row, MIXED.action[row].unsqueeze(1))


@pytest.mark.parametrize("trace", [1.0, 0.5])
@pytest.mark.parametrize("truncated", [False, True], ids=["terminated", "with truncated"])
def test_an_episode_is_judged_by_networks_that_never_saw_its_rewards(truncated: bool, trace: float) -> None:
    rows, settings = MIXED, QUICK.model_copy(update={"trace": trace})
    if not truncated:
        rows = replace(rows, terminated=rows.terminated | rows.truncated, truncated=torch.zeros_like(rows.truncated))
    before = fit_critic(rows, settings, seed=0)
    for episode in (0, 1, 5):
        own = rows.episode == episode
        changed = replace(rows, reward=torch.where(own, rows.reward + 50, rows.reward))
        after = fit_critic(changed, settings, seed=0)
        row = torch.nonzero(own).squeeze(1)
        # To the bit: not through its own return, and not through a bootstrapped end of another episode either.
        assert after.value[own].equal(before.value[own])
        action = rows.action[row].unsqueeze(1)
        assert after.action_value(row, action).equal(before.action_value(row, action))
        assert not after.value[~own].equal(before.value[~own]), "the other folds do learn from it"
        assert (after.returns[own] > before.returns[own]).all()


def test_a_trace_changes_the_advantage_and_not_the_value() -> None:
    whole, mixed, one_step = (
        fit_critic(MIXED, QUICK.model_copy(update={"trace": trace}), 0) for trace in (1.0, 0.5, 0.0)
    )
    assert whole.value.equal(mixed.value)
    assert whole.value.equal(one_step.value)
    assert whole.explained == mixed.explained == one_step.explained
    inside = torch.nonzero(~(MIXED.terminated | MIXED.truncated)).squeeze(1)
    expected = MIXED.reward[inside] + QUICK.discount * whole.value[inside + 1]
    torch.testing.assert_close(one_step.returns[inside], expected)


def test_a_function_of_the_seed() -> None:
    one, same, other = fit_critic(MIXED, QUICK, 3), fit_critic(MIXED, QUICK, 3), fit_critic(MIXED, QUICK, 4)
    assert one.advantage.equal(same.advantage)
    assert one.explained == same.explained
    assert not one.advantage.equal(other.advantage)


def test_learns_what_can_be_known_and_prefers_the_better_action() -> None:
    rows = synthetic([1] * 600, [False] * 600)
    rows = replace(rows, reward=3 * rows.observation[:, 0] + 2 * rows.action[:, 0])
    settings = CriticSettings(folds=3, hidden=(32,), updates=300, sweeps=1, batch=128, learning_rate=1e-2)
    estimates = fit_critic(rows, settings, seed=0)
    # The variance of 3 x with x ~ N(0, 1) is 9; the action's part, 4 Var(clamp(N(0, 1))), is not for V to know.
    noise = 4 * float(rows.action[:, 0].var())
    assert estimates.explained == pytest.approx(9 / (9 + noise), abs=0.06)
    assert torch.corrcoef(torch.stack([estimates.advantage, rows.action[:, 0]]))[0, 1] > 0.9
    row = torch.arange(50)
    better_and_worse = torch.zeros(50, 2, 2)
    better_and_worse[:, 0, 0], better_and_worse[:, 1, 0] = 0.8, -0.8
    q = estimates.action_value(row, better_and_worse)
    assert q.shape == (50, 2)
    assert (q[:, 0] > q[:, 1]).all()
    assert (q[:, 0] - q[:, 1]).mean() == pytest.approx(2 * 1.6, rel=0.2)


def test_time_limits_do_not_make_the_last_steps_look_bad() -> None:
    # Reward 1 for ever, cut after ten steps: every state is worth 1 / (1 - discount), the last one too.
    rows = replace(synthetic([10] * 12, [True] * 12), reward=torch.ones(120))
    settings = CriticSettings(discount=0.5, folds=3, hidden=(8,), updates=100, sweeps=6, batch=64, learning_rate=1e-2)
    estimates = fit_critic(rows, settings, seed=0)
    torch.testing.assert_close(estimates.value, torch.full((120,), 2.0), atol=0.4, rtol=0)
    torch.testing.assert_close(estimates.returns, torch.full((120,), 2.0), atol=0.4, rtol=0)


@pytest.mark.parametrize("episodes", [2, 4])
def test_fewer_episodes_than_folds(episodes: int) -> None:
    rows = synthetic([5] * episodes, [False] * episodes)
    assert torch.isfinite(fit_critic(rows, QUICK.model_copy(update={"folds": 5}), 0).advantage).all()


def test_one_episode_cannot_be_judged_by_others() -> None:
    with pytest.raises(UserError, match="learns from other episodes, and there is one"):
        fit_critic(synthetic([5], [False]), QUICK, 0)


def test_progress_counts_every_update() -> None:
    reports: list[tuple[str, int, int]] = []
    with on_progress(lambda *each: reports.append(each)):
        fit_critic(MIXED, QUICK.model_copy(update={"updates": 50}), 0)
    assert reports == [("fit the critic", 50 * (i + 1), 200) for i in range(4)]
