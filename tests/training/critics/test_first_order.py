"""Fitted advantages on an MDP where they are known, beside recorded ones, and what they may know."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pmpo_offline.data import Rows
from pmpo_offline.training import CriticEstimates, CriticSettings, fit_critic
from pmpo_offline.training.critics.cross_fitted import Folds, first_order

DISCOUNT, DECAY = 0.9, 0.8
FITTED = CriticSettings(
    discount=DISCOUNT, folds=2, hidden=(32,), updates=200, sweeps=2, batch=128, learning_rate=1e-2,
    trace=0.9, action_value="first_order", advantage="fitted",
)  # fmt: skip


def known(episodes: int = 40, length: int = 50, seed: int = 0) -> tuple[Rows, Tensor]:
    """A recording and its true advantages. x' = 0.8 x + a, z is new every step, r = x' + 3 z a, and a ~ N(0, 0.3).

    Moving a by one moves x by one now, 0.8 a step later, and so on: A(s, a) = a (1 / (1 - 0.8 γ) + 3 z).
    """
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(episodes, length + 1, generator=generator)
    action = (0.3 * torch.randn(episodes, length, generator=generator)).clamp(-1, 1)
    x = torch.zeros(episodes, length + 1)
    x[:, 0] = torch.randn(episodes, generator=generator)
    for t in range(length):
        x[:, t + 1] = DECAY * x[:, t] + action[:, t]
    states = torch.stack([x, z], dim=-1)
    n, episode = episodes * length, torch.arange(episodes).repeat_interleave(length)
    following = torch.arange(1, n + 1).view(episodes, length)
    following[:, -1] = n + torch.arange(episodes)
    last = torch.arange(n) % length == length - 1
    rows = Rows(
        states=torch.cat([states[:, :-1].flatten(0, 1), states[:, -1]]),
        next_row=following.flatten(),
        action=action.view(-1, 1),
        reward=(x[:, 1:] + 3 * z[:, :-1] * action).flatten(),
        terminated=torch.zeros(n, dtype=torch.bool),
        truncated=last,
        episode=episode,
        score=torch.full((n,), torch.nan),
        label=torch.zeros(n),
    )
    return rows, (action * (1 / (1 - DECAY * DISCOUNT) + 3 * z[:, :-1])).flatten()


def agreement(one: Tensor, other: Tensor) -> float:
    return float((one.sign() == other.sign()).float().mean())


@pytest.fixture(scope="module")
def estimates() -> CriticEstimates:
    return fit_critic(known()[0], FITTED, seed=0)


def test_signs_and_sizes_of_known_advantages(estimates: CriticEstimates) -> None:
    rows, truth = known()
    recorded = fit_critic(rows, FITTED.model_copy(update={"trace": 1.0, "advantage": "recorded"}), seed=0)
    assert agreement(estimates.advantage, truth) > 0.9 > agreement(recorded.advantage, truth)
    torch.testing.assert_close(estimates.advantage.std(), truth.std(), rtol=0.15, atol=0)


def test_candidates_are_ranked_as_their_true_values(estimates: CriticEstimates) -> None:
    rows, _ = known()
    row = torch.arange(0, len(rows), 7)
    action = torch.tensor([-0.6, -0.2, 0.2, 0.6]).view(1, 4, 1).expand(len(row), 4, 1)
    slope = 1 / (1 - DECAY * DISCOUNT) + 3 * rows.observation[row, 1]
    scores = estimates.action_value(row, action)
    assert agreement(scores[:, 3] - scores[:, 0], slope) > 0.9
    # An action's value is V and its advantage, of recorded actions too.
    recorded = estimates.action_value(row, rows.action[row].unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(recorded, estimates.value[row] + estimates.advantage[row])


def test_what_v_gets_wrong_of_states_is_not_mistaken_for_an_advantage() -> None:
    rows, truth = known()
    settings = {"updates": 400, "batch": 128, "learning_rate": 1e-2, "weight_decay": 0.01, "hidden": (32,)}
    folds = Folds(rows, CriticSettings(folds=2, **settings), 0)
    wrong = 3 * rows.observation.sum(1)  # a V that is off by more than advantages are large
    assert wrong.std() > 2 * truth.std()
    found = first_order(folds, rows.observation, rows.action, (truth + wrong).expand(2, -1))
    guessed = found(torch.arange(len(rows)), rows.action.unsqueeze(1)).squeeze(1)
    assert agreement(guessed, truth) > 0.85


def test_a_mean_action_has_no_advantage() -> None:
    rows, _ = known(episodes=10)
    estimates = fit_critic(rows, FITTED.model_copy(update={"updates": 30}), seed=0)
    assert abs(float(estimates.advantage.mean())) < 0.1 * float(estimates.advantage.std())


@pytest.mark.parametrize("trace", [0.5, 1.0])
def test_no_network_knows_the_episode_that_it_judges(trace: float) -> None:
    rows, _ = known(episodes=6, length=8)
    settings = FITTED.model_copy(update={"trace": trace, "updates": 10, "folds": 3})
    before = fit_critic(rows, settings, seed=0)
    for episode in (0, 4):
        own = rows.episode == episode
        after = fit_critic(replace(rows, reward=torch.where(own, rows.reward + 50, rows.reward)), settings, seed=0)
        # To the bit: neither by its return nor through what other networks made of it. So a fitted advantage, unlike a
        # recorded one, does not know the rewards of its own episode at all.
        assert after.value[own].equal(before.value[own])
        assert after.advantage[own].equal(before.advantage[own])
        assert not after.advantage[~own].equal(before.advantage[~own])


def test_a_function_of_the_seed() -> None:
    rows, _ = known(episodes=6, length=8)
    settings = FITTED.model_copy(update={"updates": 10})
    one, same, other = (fit_critic(rows, settings, seed) for seed in (3, 3, 4))
    assert one.advantage.equal(same.advantage)
    assert not one.advantage.equal(other.advantage)


def test_a_behaviour_without_noise_teaches_nothing_and_breaks_nothing() -> None:
    rows, _ = known(episodes=6, length=8)
    still = replace(rows, action=torch.zeros_like(rows.action), reward=torch.zeros_like(rows.reward))
    assert torch.isfinite(fit_critic(still, FITTED.model_copy(update={"updates": 10}), seed=0).advantage).all()
