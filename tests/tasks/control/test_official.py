"""Our control tasks beside the official environments: beginnings, whole episodes, single steps, whole state spaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from dm_control import suite

from pmpo_offline.tasks import control
from pmpo_offline.tasks.control import dm_suite
from pmpo_offline.tasks.control.simulation import Array, Simulation, State

NAMES = list(control.RULES)
GYMNASIUM = {"halfcheetah": "HalfCheetah-v5", "hopper": "Hopper-v5", "walker2d": "Walker2d-v5"}
SEED = 7


@dataclass
class Official:
    """An official environment, its episode begun, in one form for both packages."""

    begun: Array
    step: Callable[[Array], tuple[Array, float, bool, bool]]
    """Action to observation, reward, terminated, truncated."""
    model: Any
    data: Any

    def start_solver_afresh(self) -> None:
        """Let the solver forget, at each physics step, what it found at the last: as ours does."""
        self.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_WARMSTART


def official(name: str, seed: int, horizon: int | None = None) -> Official:
    family, task = name.split("/")
    if family == "mujoco":
        env: Any = gymnasium.make(GYMNASIUM[task], max_episode_steps=horizon)
        return Official(env.reset(seed=seed)[0], lambda a: env.step(a)[:4], env.unwrapped.model, env.unwrapped.data)
    env = suite.load(*task.split("-"), task_kwargs={"random": seed})

    def step(action: Array) -> tuple[Array, float, bool, bool]:
        now = env.step(action)
        return flat(now.observation), now.reward, now.last() and now.discount == 0, now.last() and now.discount == 1

    return Official(flat(env.reset().observation), step, env.physics.model.ptr, env.physics.data.ptr)


def flat(observation: dict[str, Any]) -> Array:
    return np.concatenate([np.ravel(part) for part in observation.values()])


def actions(rules: control.Rules, horizon: int = 1000) -> Array:
    """Random ones; gentle where wild ones would end the episode within a few steps."""
    scale = 0.1 if rules.ended else 1.0
    return scale * np.random.default_rng(0).uniform(-1, 1, (horizon, rules.action_dim))


@pytest.fixture(scope="module", params=NAMES)
def rules(request: pytest.FixtureRequest) -> control.Rules:
    return control.rules(request.param)


def test_a_seed_begins_the_official_episode(rules: control.Rules) -> None:
    seeds = [0, 3, 2**31, 3]
    ours = Simulation(rules, 4).reset(seeds)
    theirs = {seed: official(rules.id, seed).begun for seed in {*seeds}}
    np.testing.assert_allclose(ours, [theirs[seed] for seed in seeds], rtol=0, atol=1e-14)
    np.testing.assert_array_equal(ours[1], ours[3])
    assert not np.array_equal(ours[0], ours[1])


def test_an_episode_is_the_official_one_to_its_end(rules: control.Rules) -> None:
    simulation, other = Simulation(rules, 1), official(rules.id, SEED)
    other.start_solver_afresh()
    simulation.reset([SEED])
    for t, action in enumerate(actions(rules)):
        observation, reward, terminated, truncated = other.step(action)
        step = simulation.step(action[None])
        np.testing.assert_allclose(step.observation[0], observation, rtol=0, atol=1e-12, err_msg=f"step {t}")
        assert step.reward[0] == pytest.approx(reward, rel=0, abs=1e-12), f"step {t}"
        np.testing.assert_array_equal(simulation.state[0, 1:], np.concatenate([other.data.qpos, other.data.qvel]))
        assert (step.terminated[0], step.truncated[0]) == (terminated, truncated), f"step {t}"
        if terminated or truncated:
            break
    assert step.done[0]
    assert step.terminated[0] == (rules.ended is not None)
    assert simulation.elapsed[0] == t + 1 > 50


def test_every_step_of_an_official_episode_is_ours(rules: control.Rules) -> None:
    """With the official solver as it is: both stop within its tolerance of the same acceleration."""
    other, states, seen = official(rules.id, SEED), [], []
    play, start = actions(rules), rules.begin(SEED)
    for action in play:
        states.append(np.concatenate([[other.data.time], other.data.qpos, other.data.qvel]))
        seen.append(other.step(action))
        if seen[-1][2]:
            break
    n = len(seen)
    simulation = Simulation(replace(rules, begin=lambda _: start), n)
    simulation.reset([SEED] * n)
    simulation.state[:] = states
    step = simulation.step(play[:n])
    error = np.abs(step.observation - [s[0] for s in seen]).max(axis=1)
    assert np.median(error) < 1e-13
    assert np.quantile(error, 0.9) < 1e-9
    assert error.max() < 1e-5
    np.testing.assert_allclose(step.reward, [s[1] for s in seen], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(step.terminated, [s[2] for s in seen])


@pytest.mark.parametrize("name", ["hopper", "walker2d", "halfcheetah"])
def test_horizon_cuts_as_gymnasium_does(name: str) -> None:
    rules = replace(control.rules(f"mujoco/{name}"), horizon=12)
    simulation, other = Simulation(rules, 1), official(f"mujoco/{name}", SEED, horizon=12)
    simulation.reset([SEED])
    for action in actions(rules, 12):
        _, _, terminated, truncated = other.step(action)
        step = simulation.step(action[None])
        assert (step.terminated[0], step.truncated[0]) == (terminated, truncated)
    assert step.truncated[0]
    assert not step.terminated[0]


@pytest.mark.parametrize("name", ["hopper", "walker2d"])
def test_wild_actions_end_episodes_where_gymnasium_ends_them(name: str) -> None:
    rules = control.rules(f"mujoco/{name}")
    simulation = Simulation(rules, 8)
    simulation.reset(range(8))
    play = np.random.default_rng(1).uniform(-1, 1, (8, 200, rules.action_dim))
    others = [official(f"mujoco/{name}", seed) for seed in range(8)]
    for other in others:
        other.start_solver_afresh()
    alive, t = np.arange(8), 0
    while len(alive):
        step = simulation.step(play[alive, t], alive)
        seen = [others[i].step(play[i, t]) for i in alive]
        np.testing.assert_array_equal(step.terminated, [s[2] for s in seen])
        np.testing.assert_allclose(step.reward, [s[1] for s in seen], rtol=0, atol=1e-12)
        alive, t = alive[~step.done], t + 1
    assert len(set(simulation.elapsed)) > 2, "all ended alike: the comparison would prove little"


SPREAD: dict[str, tuple[list[float], float, tuple[float, float]]] = {
    "cartpole-swingup": ([1.8, 3.2], 5, (0.1, 0.5)),
    "cheetah-run": ([1.0] * 9, 12, (0.0, 0.9)),
    "walker-walk": ([0.4, 1.0, 0.6, *[0.5] * 6], 2, (0.12, 0.9)),
    "finger-spin": ([1.5, 1.5, 3.1], 30, (0.0, 1.0)),
    "reacher-easy": ([3.1, 2.5], 2, (0.0, 1.0)),
    "hopper-hop": ([1.0, 0.2, 0.5, 0.5, 0.8, 1.2, 0.6], 3, (0.0, 0.5)),
}
"""How far positions and velocities are drawn from zero, and how low and high rewards must come to prove something."""


@pytest.mark.parametrize("name", SPREAD)
def test_rewards_and_observations_all_over_the_state_space(name: str) -> None:
    rules, rng = control.rules(f"dm_control/{name}"), np.random.default_rng(2)
    (positions, velocities, (low, high)), has_target = SPREAD[name], name.startswith("reacher")
    env = suite.load(*name.split("-"), task_kwargs={"random": 5})
    env.reset()
    physics, data = env.physics, env.physics.data
    moments, play, seen = [], rng.uniform(-1, 1, (300, 1, rules.action_dim)), []
    for action in play[:, 0]:
        with physics.reset_context():
            if has_target:
                env.task.initialize_episode(physics)
            data.qpos[:] = rng.uniform(-1, 1, rules.model.nq) * positions
            data.qvel[:] = rng.uniform(-1, 1, rules.model.nv) * velocities
        physics.set_control(action)
        target = physics.named.model.geom_pos["target", :2] if has_target else np.zeros(2)
        moments.append(State(*(np.array(x)[None] for x in (data.qpos, data.qvel, data.sensordata, target))))
        seen.append((flat(env.task.get_observation(physics)), float(env.task.get_reward(physics))))
    rewards = [rules.reward(now, action, now)[0] for now, action in zip(moments, play, strict=True)]
    observed = [rules.observe(now)[0] for now in moments]
    np.testing.assert_allclose(observed, [s[0] for s in seen], rtol=0, atol=1e-12)
    np.testing.assert_allclose(rewards, [s[1] for s in seen], rtol=0, atol=1e-12)
    assert min(rewards) <= low
    assert max(rewards) >= high


def test_every_task_is_compared_all_over() -> None:
    assert set(SPREAD) == set(dm_suite.TASKS)


@pytest.mark.parametrize("name", GYMNASIUM)
def test_health_and_observations_all_over_the_state_space(name: str) -> None:
    rules, rng = control.rules(f"mujoco/{name}"), np.random.default_rng(3)
    env: Any = gymnasium.make(GYMNASIUM[name]).unwrapped
    env.reset(seed=0)
    healthy = []
    for velocities in [2.0] * 150 + [150.0] * 150:
        qpos, qvel = rng.uniform(-1.1, 1.1, rules.model.nq), rng.uniform(-1, 1, rules.model.nv) * velocities
        qpos[1], qpos[2] = rng.uniform(0.6, 2.2), qpos[2] * rng.choice([0.2, 1.0])
        env.set_state(qpos, qvel)
        now = State(qpos[None], qvel[None], np.zeros((1, 0)), np.zeros((1, 2)))
        np.testing.assert_array_equal(rules.observe(now)[0], env._get_obs())
        if rules.ended:
            assert rules.ended(now)[0] == (not env.is_healthy)
            healthy.append(env.is_healthy)
    assert rules.ended is None or 20 < sum(healthy) < 280
