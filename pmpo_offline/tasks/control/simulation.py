"""Many episodes of a control task at once: batched physics on `mujoco.rollout`.

All episodes advance by one control step in one native call. An episode's future depends on its own state and actions
alone, not on what shares the batch with it nor on the number of threads.

Beside the official environments the contact solver starts afresh at every physics step (MuJoCo's "warm start", the
last acceleration, is no part of the state that a rollout takes and returns). Where the official environment starts
afresh too, the states of whole episodes are its own to the last bit. Where it does not, a step from the same state
agrees to the solver's tolerance: nine of ten within 1e-9, the worst within 1e-5; and over many steps of a mechanism
that bounces such differences grow as chaos makes them, as they do between two versions of MuJoCo.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from pmpo_offline.tasks import simulated
from pmpo_offline.tasks.simulated import Array, Bools, Index, Physics, Step, log_warning
from pmpo_offline.tasks.task import Outcome

_STATE = mujoco.mjtState.mjSTATE_FULLPHYSICS.value


@dataclass(frozen=True)
class State:
    """The state of m episodes between two control steps, or without m that of one at its beginning; SI units."""

    qpos: Array
    """Positions of the joints, metres or radians, (m, nq)."""
    qvel: Array
    """Their velocities, (m, nv)."""
    sensors: Array
    """MuJoCo's sensors as of the *last physics step*, (m, nsensordata): right for forces, one step old for the rest."""
    target: Array
    """Position to reach, metres, (m, 2), in tasks that have one; else zeros."""


@dataclass(frozen=True)
class Rules:
    """The rules of a task: its model, beginnings, observations, rewards and end."""

    id: str
    model: mujoco.MjModel
    substeps: int
    """Physics steps a control step."""
    horizon: int
    """Control steps an episode."""
    begin: Callable[[int], State]
    """Draws the beginning that the official environment draws with this seed."""
    observe: Callable[[State], Array]
    """(m, O)."""
    reward: Callable[[State, Array, State], Array]
    """(m,) from the state before, the action (m, A) and the state after."""
    ended: Callable[[State], Bools] | None = None
    """(m,) whether the task itself ends the episode here; None where only the horizon does."""

    @property
    def action_dim(self) -> int:
        """A; actions are in [-1, 1]."""
        return int(self.model.nu)

    @property
    def observation_dim(self) -> int:
        """O."""
        widths = (self.model.nq, self.model.nv, self.model.nsensordata, 2)
        return int(self.observe(State(*(np.zeros((1, width)) for width in widths))).shape[1])


class Simulation:
    """Episodes of one task. `reset` begins them; `step` advances those named by `index`, the others do not change.

    Args:
        rules: the task.
        episodes: n, how many are held.
        threads: native threads that share the batch; results do not depend on it.

    Raises:
        ValueError: if the model keeps a state beside positions and velocities.
    """

    success_ends = False

    def __init__(self, rules: Rules, episodes: int, threads: int = 1) -> None:
        model = rules.model
        if mujoco.mj_stateSize(model, _STATE) != 1 + model.nq + model.nv:
            raise ValueError(f"{rules.id}: actuators or plugins with a state of their own cannot be simulated")
        self.rules = rules
        self._model = _lean(model)
        self._physics = Physics(self._model, threads)
        self.horizon, self.action_dim = rules.horizon, rules.action_dim
        self.state = np.zeros((episodes, 1 + model.nq + model.nv))
        """Time in seconds, positions and velocities, (n, 1 + nq + nv)."""
        self.sensors = np.zeros((episodes, model.nsensordata))
        self.target = np.zeros((episodes, 2))
        self.elapsed = np.full(episodes, rules.horizon)
        """Control steps since the episode began, (n,)."""
        self.observation = np.zeros((episodes, rules.observation_dim))
        """The newest of each episode, (n, O)."""
        self._over = np.ones(episodes, np.bool_)

    def __len__(self) -> int:
        return len(self.state)

    def reset(self, seeds: Sequence[int], index: Index | None = None) -> Array:
        """Begin the episodes `index` (default: all), one seed each, and return their observations, (m, O).

        A seed gives the beginning that the official environment draws with it. `ValueError` if there are more or fewer
        seeds than episodes, or one is not in [0, 2^32).
        """
        index = np.arange(len(self)) if index is None else index
        if len(seeds) != len(index):
            raise ValueError(f"{len(index)} episodes need as many seeds, got {len(seeds)}")
        if any(not 0 <= seed < 2**32 for seed in seeds):
            raise ValueError("seeds must be in [0, 2^32)")
        for i, seed in zip(index, seeds, strict=True):
            start = self.rules.begin(int(seed))
            self.state[i] = np.concatenate([[0.0], start.qpos, start.qvel])
            self.sensors[i], self.target[i] = start.sensors, start.target
        self.elapsed[index], self._over[index] = 0, False
        observation = self.rules.observe(self._read(self.state[index], self.sensors[index], self.target[index]))
        self.observation[index] = observation
        return observation

    def step(self, action: Array, index: Index | None = None) -> Step:
        """Apply `action`, (m, A) clipped to [-1, 1], for one control step to the episodes `index` (default: all).

        Raises:
            ValueError: if an action is not a number or of another shape, or an episode is over and was not reset.
        """
        which = slice(None) if index is None else index
        elapsed, target, before = self.elapsed[which] + 1, self.target[which].copy(), self.state[which].copy()
        action = self._checked(action, np.arange(len(self)) if index is None else index)
        state, sensors = self._physics.advance([self._model] * len(before), before, action, self.rules.substeps)
        self.state[which], self.sensors[which] = state, sensors
        now = self._read(state, sensors, target)
        terminated = np.zeros(len(state), np.bool_) if self.rules.ended is None else self.rules.ended(now)
        truncated = elapsed >= self.rules.horizon
        self.elapsed[which], self._over[which] = elapsed, terminated | truncated
        reward = self.rules.reward(self._read(before, sensors, target), action, now)
        self.observation[which] = observation = self.rules.observe(now)
        return Step(observation, reward, terminated, truncated)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays that hold all episodes, for a checkpoint to copy and to restore in place."""
        names = ("state", "sensors", "target", "elapsed", "observation")
        return {name: getattr(self, name) for name in names} | {"over": self._over}

    def _checked(self, action: Array, index: Index) -> Array:
        """Return the actions of the episodes `index`, clipped; raises what `step` raises."""
        action = np.clip(np.asarray(action, np.float64), -1, 1)
        if action.shape != (len(index), self.rules.action_dim):
            raise ValueError(f"actions must be ({len(index)}, {self.rules.action_dim}), got {action.shape}")
        if not np.isfinite(action).all():
            raise ValueError(f"the action of episode {index[~np.isfinite(action).all(axis=1)][0]} is not a number")
        if self._over[index].any():
            raise ValueError(f"episode {index[self._over[index]][0]} is over: reset it before its next step")
        return action

    def _read(self, state: Array, sensors: Array, target: Array) -> State:
        velocities = 1 + self.rules.model.nq
        return State(state[:, 1:velocities], state[:, velocities:], sensors, target)


def begin_seed(seed: int) -> int:
    """Return the number in [0, 2^32) that seeds the official environment in the episode of this seed."""
    return int(np.random.SeedSequence(seed).generate_state(1)[0])


def begin(rules: Rules, seeds: Sequence[int], threads: int = 1) -> Simulation:
    """Begin one episode a seed, as the official environment does with the number made of it (`begin_seed`)."""
    simulation = Simulation(rules, len(seeds), threads)
    simulation.reset([begin_seed(seed) for seed in seeds])
    return simulation


def play(rules: Rules, seeds: Sequence[int], choose: Callable[[Array, int], Array], *, threads: int = 1) -> Outcome:
    """Play one episode a seed, each to its end; nothing depends on `threads`.

    `choose` returns the actions of all n episodes, (n, A), from their observations, (n, O), and the time step. It gets
    also those that are over: a product of matrices of equal shapes rounds alike every time, so that an episode does not
    depend on its neighbours.
    """
    simulation = begin(rules, seeds, threads)
    return simulated.play(simulation, lambda active, t: choose(simulation.observation, t)[active])


def _lean(model: mujoco.MjModel) -> mujoco.MjModel:
    """Return a copy that computes the same motion with less work.

    The solver starts afresh, so that the next state follows from state and action alone. Islands and bounding volumes
    are not searched for: with one mechanism of few geometries that costs time and changes no bit.
    """
    lean = copy.copy(model)
    flags = mujoco.mjtDisableBit
    lean.opt.disableflags |= flags.mjDSBL_WARMSTART | flags.mjDSBL_MIDPHASE
    if model.ntree == 1:  # else the solver takes the islands one by one, and rounds otherwise
        lean.opt.disableflags |= flags.mjDSBL_ISLAND
    return lean


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings while an official package is imported or its model compiled."""
    mujoco.set_mju_user_warning(lambda _: None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        mujoco.set_mju_user_warning(log_warning)
