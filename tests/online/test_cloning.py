"""Cloning of a script: what the script does, what is learned from it, and that stopping changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.resumed import assert_resumes

from pmpo_offline.online import cloning
from pmpo_offline.online.behavior import returns
from pmpo_offline.online.cloning import LINK, Cloning, reach
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.tasks.control import Simulation, rules

TASK = "dm_control/reacher-easy"


def test_the_script_holds_the_finger_in_the_target() -> None:
    simulation = Simulation(rules(TASK), 16)
    observation, total = simulation.reset(range(16)), np.zeros(16)
    for _ in range(1000):
        step = simulation.step(reach(observation))
        observation, total = step.observation, total + step.reward
    assert total.min() > 950


def test_the_script_by_hand() -> None:
    # Both links along x, at rest; the target straight above the elbow's circle: shoulder 0 and elbow a quarter turn.
    finger = np.array([2 * LINK, 0])
    target = np.array([LINK, LINK])
    observation = np.concatenate([[0, 0], target - finger, [0, 0]])[None]
    upwards = cloning.STIFFNESS * np.array([0, np.pi / 2])
    assert reach(observation)[0] == pytest.approx(upwards)
    # Seen from an elbow bent the other way, the shoulder turns by a quarter instead.
    bent = np.array([0.4, -1.2])
    finger = LINK * np.array([np.cos(0.4) + np.cos(-0.8), np.sin(0.4) + np.sin(-0.8)])
    observation = np.concatenate([bent, target - finger, [0.5, -0.5]])[None]
    other = cloning.STIFFNESS * (np.array([np.pi / 2, -np.pi / 2]) - bent) - cloning.DAMPING * np.array([0.5, -0.5])
    assert reach(observation)[0] == pytest.approx(other)


def test_the_reacher_is_learned_in_seconds() -> None:
    task = rules(TASK)
    learner = Cloning(task, 0, 100_000)
    seeds = list(range(4))
    before = returns(learner.policy(), task, seeds).mean()
    while learner.frames < learner.planned:
        metrics = learner.advance()
    assert before < 300
    assert returns(learner.policy(), task, seeds).mean() > 600
    assert metrics["reward"] > 0.5
    assert learner.policy().log_std == pytest.approx(np.log(cloning.STD))


def test_a_restored_learner_goes_on_as_if_nothing_had_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, number in (("EPISODES", 4), ("STEPS", 8), ("UPDATES", 2), ("BATCH", 16), ("NEWEST", 100), ("AGE", 12)):
        monkeypatch.setattr(cloning, name, number)
    monkeypatch.setattr(cloning, "BEGINNINGS", 8)
    uninterrupted, first, second = (Cloning(rules(TASK), 3, 1_000) for _ in range(3))
    assert_resumes(uninterrupted, first, second)
    assert second.frames == 6 * 4 * 8
    assert len(second.state_dict()["kept_rows_0"]) == 100


def test_only_what_has_a_script_is_cloned() -> None:
    with pytest.raises(UserError, match=r"mujoco/hopper has no script to clone .*choose --algo ppo"):
        Cloning(rules("mujoco/hopper"), 0)
