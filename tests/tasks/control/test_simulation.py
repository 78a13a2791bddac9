"""Batched control: an episode is the same alone, in company, in another order and on two threads, to the last bit."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from pmpo_offline.runtime.errors import UserError
from pmpo_offline.tasks import control
from pmpo_offline.tasks.control.simulation import Array, Rules, Simulation

N, STEPS = 9, 60
SEEDS = list(range(10, 10 + N))


@pytest.fixture(scope="module", params=["dm_control/hopper-hop", "dm_control/finger-spin", "mujoco/halfcheetah"])
def rules(request: pytest.FixtureRequest) -> Rules:
    return control.rules(request.param)


def actions(rules: Rules) -> Array:
    return np.random.default_rng(0).uniform(-1, 1, (N, STEPS, rules.action_dim))


def states(rules: Rules, order: list[int], threads: int = 1) -> Array:
    """Play the fixed actions of the episodes `order` in one batch; (len(order), STEPS, state and sensors)."""
    simulation, play = Simulation(rules, len(order), threads), actions(rules)
    simulation.reset([SEEDS[i] for i in order])
    seen = []
    for t in range(STEPS):
        simulation.step(play[order, t])
        seen.append(np.concatenate([simulation.state, simulation.sensors], axis=1))
    return np.stack(seen, axis=1)


@pytest.mark.parametrize("order", [list(range(N)), list(range(N))[::-1], [3, 3, 7, 0], [8]], ids=str)
@pytest.mark.parametrize("threads", [1, 2])
def test_episode_is_the_same_in_other_company(rules: Rules, order: list[int], threads: int) -> None:
    alone = np.concatenate([states(rules, [i]) for i in sorted(set(order))])
    place = {i: k for k, i in enumerate(sorted(set(order)))}
    np.testing.assert_array_equal(states(rules, order, threads), alone[[place[i] for i in order]])


def test_a_control_step_is_plain_mujoco_with_a_solver_that_forgets(rules: Rules) -> None:
    simulation, play = Simulation(rules, N), actions(rules)
    simulation.reset(SEEDS)
    model = simulation.rules.model.__copy__()
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_WARMSTART
    data, kind = mujoco.MjData(model), mujoco.mjtState.mjSTATE_FULLPHYSICS
    contacts = 0
    for t in range(STEPS):
        before, i = simulation.state.copy(), t % N
        simulation.step(play[:, t])
        mujoco.mj_setState(model, data, before[i], kind)
        data.ctrl[:] = play[i, t]
        mujoco.mj_step(model, data, rules.substeps)
        after = np.zeros_like(before[i])
        mujoco.mj_getState(model, data, after, kind)
        np.testing.assert_array_equal(simulation.state[i], after)
        contacts += data.ncon
    assert contacts, "nothing ever touched: the comparison would prove little"


def test_the_others_stay_and_may_begin_anew(rules: Rules) -> None:
    simulation, play = Simulation(rules, 3), actions(rules)
    begun = simulation.reset(SEEDS[:3])
    simulation.step(play[:3, 0])
    before = simulation.state.copy()
    simulation.step(play[[0, 2], 1], np.array([0, 2]))
    np.testing.assert_array_equal(simulation.state[1], before[1])
    np.testing.assert_array_equal(simulation.elapsed, [2, 1, 2])
    again = simulation.reset(SEEDS[2:3], np.array([2]))
    np.testing.assert_array_equal(again[0], begun[2])
    np.testing.assert_array_equal(simulation.elapsed, [2, 1, 0])
    simulation.step(np.zeros((0, rules.action_dim)), np.zeros(0, np.intp))  # none of them moves
    np.testing.assert_array_equal(simulation.elapsed, [2, 1, 0])


def test_what_is_handed_out_does_not_change_later(rules: Rules) -> None:
    simulation, play = Simulation(rules, 2), actions(rules)
    observation = simulation.reset(SEEDS[:2])
    step, kept = simulation.step(play[:2, 0]), observation.copy()
    after = step.observation.copy()
    simulation.step(play[:2, 1])
    np.testing.assert_array_equal(observation, kept)
    np.testing.assert_array_equal(step.observation, after)


def test_actions_are_clipped(rules: Rules) -> None:
    simulation = Simulation(rules, 2)
    simulation.reset([1, 1])
    play = np.ones((2, rules.action_dim))
    play[1] *= 5
    step = simulation.step(play)
    np.testing.assert_array_equal(step.observation[0], step.observation[1])
    assert step.reward[0] == step.reward[1]


def test_misuse_is_refused(rules: Rules) -> None:
    simulation = Simulation(rules, 2)
    with pytest.raises(ValueError, match="episode 0 is over: reset"):
        simulation.step(np.zeros((2, rules.action_dim)))
    with pytest.raises(ValueError, match="2 episodes need as many seeds, got 1"):
        simulation.reset([1])
    with pytest.raises(ValueError, match="seeds must be in"):
        simulation.reset([1, -1])
    simulation.reset([1, 2])
    with pytest.raises(ValueError, match=r"actions must be \(2, "):
        simulation.step(np.zeros((2, 7)))
    action = np.zeros((2, rules.action_dim))
    action[1, 0] = np.nan
    with pytest.raises(ValueError, match="episode 1 is not a number"):
        simulation.step(action)
    assert len(simulation) == 2


def test_ended_episodes_wait_for_a_reset() -> None:
    rules = control.rules("mujoco/hopper")
    simulation = Simulation(rules, 1)
    simulation.reset([0])
    while not simulation.step(np.ones((1, 3))).terminated[0]:
        pass
    assert simulation.elapsed[0] < 100
    with pytest.raises(ValueError, match="is over"):
        simulation.step(np.ones((1, 3)))


def test_unknown_task_is_named() -> None:
    with pytest.raises(UserError, match="did you mean dm_control/cheetah-run"):
        control.rules("dm_control/cheeta-run")
