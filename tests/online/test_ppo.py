"""PPO: its estimates by hand, its loss by hand, and that stopping changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.resumed import assert_resumes

from pmpo_offline.online.acting import RunningStats
from pmpo_offline.online.behavior import random_returns, returns
from pmpo_offline.online.ppo import PPO, PPOConfig, advantages, clipped
from pmpo_offline.tasks.control import rules

SMALL = PPOConfig(100_000, repeat=2, episodes=4, decisions=8, epochs=2, minibatch=16)


def test_advantages_by_hand() -> None:
    reward, value = np.array([[1.0], [2.0], [3.0]]), np.array([[0.5], [1.0], [1.5]])
    following = np.array([[1.0], [1.5], [4.0]])
    surprise = [1 + 0.9 * 1 - 0.5, 2 + 0.9 * 1.5 - 1, 3 + 0.9 * 4 - 1.5]
    on = np.zeros((3, 1), np.bool_)
    last = surprise[2]
    middle = surprise[1] + 0.9 * 0.8 * last
    first = surprise[0] + 0.9 * 0.8 * middle
    assert advantages(reward, value, 0.9 * following, on, 0.9 * 0.8)[:, 0] == pytest.approx([first, middle, last])
    # An episode over after the second step: nothing of the third reaches it, but its own final value does.
    ended = np.array([[False], [True], [False]])
    cut = advantages(reward, value, 0.9 * following, ended, 0.9 * 0.8)[:, 0]
    assert cut == pytest.approx([surprise[0] + 0.9 * 0.8 * surprise[1], surprise[1], last])


def test_without_a_trace_or_with_all_of_it_they_are_what_everyone_knows() -> None:
    chance = np.random.default_rng(0)
    reward, value = chance.normal(size=(2, 20, 3))
    following = np.concatenate([value[1:], np.zeros((1, 3))])
    on = np.zeros((20, 3), np.bool_)
    assert np.allclose(advantages(reward, value, 0.9 * following, on, 0.0), reward + 0.9 * following - value)
    returns_to_go = np.stack([sum(0.9**k * reward[t + k] for k in range(20 - t)) for t in range(20)])
    assert np.allclose(advantages(reward, value, 0.9 * following, on, 0.9), returns_to_go - value)


def test_the_clipped_objective_by_hand() -> None:
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1], requires_grad=True)
    advantage = torch.tensor([2.0, -2.0, 2.0, -2.0, 1.0])
    # Clipped only where that makes it smaller: 1.2 * 2, 1.5 * -2, 0.5 * 2, 0.8 * -2, 1.1.
    loss = clipped(ratio, advantage)
    assert loss.item() == pytest.approx(-(2.4 - 3.0 + 1.0 - 1.6 + 1.1) / 5)
    loss.backward()
    assert ratio.grad is not None
    assert ratio.grad.tolist() == pytest.approx([0, 2 / 5, -2 / 5, 0, -1 / 5])


def test_moments_of_batches_are_those_of_all_rows() -> None:
    rows = np.random.default_rng(0).normal(3, 2, (1000, 4)) * [1, 10, 100, 0.1]
    moments = RunningStats(4)
    assert moments.std.tolist() == [1, 1, 1, 1]
    for batch in np.split(rows, [1, 10, 500]):
        moments.add(batch)
    assert np.allclose(moments.mean, rows.mean(axis=0))
    assert np.allclose(moments.std, rows.std(axis=0))


@pytest.mark.parametrize("task", ["dm_control/cartpole-swingup", "mujoco/hopper"])
def test_a_restored_learner_goes_on_as_if_nothing_had_happened(task: str) -> None:
    uninterrupted, first, second = (PPO(rules(task), 3, 1_000, SMALL) for _ in range(3))
    assert_resumes(uninterrupted, first, second)
    assert not torch.equal(second.actor[0].weight, first.actor[0].weight)


def test_a_task_that_ends_episodes_is_counted_by_the_steps_it_took() -> None:
    learner = PPO(rules("mujoco/hopper"), 0, 10_000, SMALL)
    for _ in range(20):
        learner.advance()
    # An untrained hopper falls within some twenty steps, at times in the first half of a decision.
    assert 0.9 * 20 * 4 * 8 * 2 < learner.frames < 20 * 4 * 8 * 2


def test_cartpole_is_learned_in_seconds() -> None:
    task = rules("dm_control/cartpole-swingup")
    learner = PPO(task, 0, 16_000, PPOConfig(16_000, learning_rate=1e-3, episodes=32, decisions=64, minibatch=512))
    seeds = list(range(4))
    assert returns(learner.policy(), task, seeds).mean() < 60
    while learner.frames < learner.planned:
        metrics = learner.advance()
    assert random_returns(task, seeds).mean() < 60
    assert returns(learner.policy(), task, seeds).mean() > 80
    assert all(np.isfinite(value) for value in metrics.values())
