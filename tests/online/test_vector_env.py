"""Environments that never stop: rows align with the simulation, ends stand for a tick, resuming changes nothing."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from pmpo_offline.online.acting import VectorEnv
from pmpo_offline.online.replay import CUT_OFF, ENDED, GOES_ON
from pmpo_offline.tasks.control import Rules, Simulation, rules

HORIZON = 6


def short(name: str = "dm_control/cartpole-swingup") -> Rules:
    return replace(rules(name), horizon=HORIZON)


def actions(ticks: int, runs: int, environments: int, action_dim: int = 1) -> Tensor:
    return torch.rand(ticks, runs, environments, action_dim, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_observations_and_rewards_are_the_simulation_s_and_the_final_one_has_a_tick_of_its_own() -> None:
    environments = VectorEnv(short(), [3], environments=2, repeat=2)
    assert environments._simulation.elapsed.tolist() == [0, 3]
    alone = Simulation(short(), 2)
    alone.state[:], alone.elapsed[:], alone._over[:] = environments._simulation.state, [0, 3], False
    action = actions(3, 1, 2)
    # The first has 6 control steps to go, three ticks; the second 3, so that its second action is held for one step.
    reward = environments.step(action[0])
    once, twice = (alone.step(action[0, 0].double().numpy()) for _ in range(2))
    torch.testing.assert_close(reward[0], torch.from_numpy(once.reward + twice.reward).float())
    torch.testing.assert_close(environments.observation[0], torch.from_numpy(twice.observation).float())
    assert environments.end.tolist() == [[GOES_ON, GOES_ON]]
    environments.step(action[1])
    assert environments.end.tolist() == [[GOES_ON, CUT_OFF]]
    assert environments.frames == 4 + 2 + 1
    final = environments.observation[0, 1].clone()
    reward = environments.step(action[2])
    assert reward[0, 1] == 0
    assert environments.end.tolist() == [[CUT_OFF, GOES_ON]]
    assert environments.frames == 7 + 2
    assert environments._simulation.elapsed.tolist() == [6, 0]
    assert not torch.equal(environments.observation[0, 1], final)


def test_the_task_s_own_end_is_told_from_the_clock_s() -> None:
    environments = VectorEnv(replace(rules("mujoco/hopper"), horizon=1000), [0], environments=8, repeat=1)
    environments._simulation.elapsed[:] = 0
    seen = set()
    for action in actions(60, 1, 8, 3).sign():
        environments.step(action)
        seen |= set(environments.end.flatten().tolist())
    assert seen == {GOES_ON, ENDED}  # hopping at random, it falls long before the horizon


def test_a_run_meets_the_same_alone_and_in_a_stack_and_never_the_same_beginning_twice() -> None:
    together, alone = (VectorEnv(short(), seeds, environments=2, repeat=1) for seeds in ([1, 4], [4]))
    beginnings = []
    for action in actions(20, 2, 2):
        assert torch.equal(together.observation[1:], alone.observation)
        assert torch.equal(together.end[1:], alone.end)
        beginnings += [tuple(each) for each in together.observation[together.end == GOES_ON].tolist()]
        assert torch.equal(together.step(action)[1:], alone.step(action[1:]))
    assert len(set(beginnings)) == len(beginnings)


def test_resuming_changes_nothing() -> None:
    whole, resumed = (VectorEnv(short(), [1, 4], environments=3, repeat=2) for _ in range(2))
    action = actions(20, 2, 3)
    for each in action[:9]:
        whole.step(each)
    resumed.load_state_dict(whole.state_dict())
    for each in action[9:]:
        assert torch.equal(whole.step(each), resumed.step(each))
        assert torch.equal(whole.observation, resumed.observation)
        assert torch.equal(whole.end, resumed.end)
    assert whole.frames == resumed.frames
