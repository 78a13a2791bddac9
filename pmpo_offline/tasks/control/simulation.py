"""Many episodes of a control task at once: batched physics on `mujoco.rollout`.

All episodes advance by one control step in one native call. An episode's future depends on its own state and actions
alone, never on what shares the batch with it nor on the number of threads.

Beside the official environments the contact solver starts afresh at every physics step (MuJoCo's "warm start", the
last acceleration, is no part of the state that a rollout takes and returns). Where the official environment starts
afresh too, the states of whole episodes are its own to the last bit. Where it does not, a step from the same state
agrees to the solver's tolerance: nine of ten within 1e-9, the worst within 1e-5; and over many steps of a mechanism
that bounces such differences grow as chaos makes them, as they do between two versions of MuJoCo.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import mujoco
import numpy as np
from mujoco import rollout
from numpy.typing import NDArray

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
Index = NDArray[np.intp]

_STATE = mujoco.mjtState.mjSTATE_FULLPHYSICS.value
_CONTROL = mujoco.mjtState.mjSTATE_CTRL.value


@dataclass(frozen=True)
class Moment:
    """What m episodes are like between two control steps; SI units."""

    qpos: Array
    """Positions of the joints, metres or radians, (m, nq)."""
    qvel: Array
    """Their velocities, (m, nv)."""
    sensors: Array
    """MuJoCo's sensors as of the *last physics step*, (m, nsensordata): right for forces, one step old for the rest."""
    target: Array
    """Where to go, metres, (m, 2), in tasks that have such a place; else zeros."""


@dataclass(frozen=True)
class Start:
    """How an episode begins."""

    qpos: Array  # (nq,)
    qvel: Array  # (nv,)
    sensors: Array  # (nsensordata,)
    target: Array  # (2,)


@dataclass(frozen=True)
class Rules:
    """All that distinguishes one task from another."""

    id: str
    model: mujoco.MjModel
    substeps: int
    """Physics steps a control step."""
    horizon: int
    """Control steps an episode."""
    begin: Callable[[int], Start]
    """Draws the beginning that the official environment draws with this seed."""
    observe: Callable[[Moment], Array]
    """(m, O)."""
    reward: Callable[[Moment, Array, Moment], Array]
    """(m,) from the moment before, the action (m, A) and the moment after."""
    ended: Callable[[Moment], Bools] | None = None
    """(m,) whether the task itself ends the episode here; None where only the horizon does."""

    @property
    def action_dim(self) -> int:
        """A; actions are in [-1, 1]."""
        return int(self.model.nu)

    @property
    def observation_dim(self) -> int:
        """O."""
        widths = (self.model.nq, self.model.nv, self.model.nsensordata, 2)
        return int(self.observe(Moment(*(np.zeros((1, width)) for width in widths))).shape[1])


@dataclass(frozen=True)
class Step:
    """What m episodes make of their actions."""

    observation: Array
    """(m, O), after the action; of an ended episode the final one."""
    reward: Array
    """(m,)."""
    terminated: Bools
    """(m,) the task has ended the episode."""
    truncated: Bools
    """(m,) the episode is as long as the horizon. As in Gymnasium both may be true of a last step."""

    @property
    def done(self) -> Bools:
        """(m,) whether the episode is over."""
        return self.terminated | self.truncated


class Simulation:
    """Episodes of one task. `reset` begins them; `step` advances those named by `index`, the others stay as they are.

    Args:
        rules: the task.
        episodes: n, how many are held.
        threads: native threads that share the batch; results do not depend on it.

    Raises:
        ValueError: if the model keeps a state beside positions and velocities.
    """

    def __init__(self, rules: Rules, episodes: int, threads: int = 1) -> None:
        mujoco.set_mju_user_warning(_log)  # or MuJoCo writes a file into the working directory
        model = rules.model
        if mujoco.mj_stateSize(model, _STATE) != 1 + model.nq + model.nv:
            raise ValueError(f"{rules.id}: actuators or plugins with a state of their own cannot be simulated")
        self.rules = rules
        self._model = _lean(model)
        self._scratch = [mujoco.MjData(self._model) for _ in range(max(threads, 1))]
        self._pool = rollout.Rollout(nthread=threads if threads > 1 else 0)
        self.state = np.zeros((episodes, 1 + model.nq + model.nv))
        """Time in seconds, positions and velocities, (n, 1 + nq + nv)."""
        self.sensors = np.zeros((episodes, model.nsensordata))
        self.target = np.zeros((episodes, 2))
        self.elapsed = np.full(episodes, rules.horizon)
        """Control steps since the episode began, (n,)."""
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
        return self.rules.observe(self._moment(self.state[index], self.sensors[index], self.target[index]))

    def step(self, action: Array, index: Index | None = None) -> Step:
        """Apply `action`, (m, A) clipped to [-1, 1], for one control step to the episodes `index` (default: all).

        Raises:
            ValueError: if an action is not a number or of another shape, or an episode is over and was not begun anew.
        """
        which = slice(None) if index is None else index
        elapsed, target, before = self.elapsed[which] + 1, self.target[which].copy(), self.state[which].copy()
        action = self._checked(action, np.arange(len(self)) if index is None else index)
        state, sensors = self._advance(before, action)
        self.state[which], self.sensors[which] = state, sensors
        now = self._moment(state, sensors, target)
        terminated = np.zeros(len(state), np.bool_) if self.rules.ended is None else self.rules.ended(now)
        truncated = elapsed >= self.rules.horizon
        self.elapsed[which], self._over[which] = elapsed, terminated | truncated
        reward = self.rules.reward(self._moment(before, sensors, target), action, now)
        return Step(self.rules.observe(now), reward, terminated, truncated)

    def _checked(self, action: Array, index: Index) -> Array:
        """Return the actions of the episodes `index` clipped; `ValueError` as `step` has it."""
        action = np.clip(np.asarray(action, np.float64), -1, 1)
        if action.shape != (len(index), self.rules.action_dim):
            raise ValueError(f"actions must be ({len(index)}, {self.rules.action_dim}), got {action.shape}")
        if not np.isfinite(action).all():
            raise ValueError(f"the action of episode {index[~np.isfinite(action).all(axis=1)][0]} is not a number")
        if self._over[index].any():
            raise ValueError(f"episode {index[self._over[index]][0]} is over: reset it before its next step")
        return action

    def _moment(self, state: Array, sensors: Array, target: Array) -> Moment:
        velocities = 1 + self.rules.model.nq
        return Moment(state[:, 1:velocities], state[:, velocities:], sensors, target)

    def _advance(self, state: Array, action: Array) -> tuple[Array, Array]:
        """Return states and sensors `substeps` physics steps after `state`, (m, 1 + nq + nv)."""
        m, substeps = len(state), self.rules.substeps
        states, sensors = np.empty((m, substeps, state.shape[1])), np.empty((m, substeps, self.sensors.shape[1]))
        if m:
            # The shapes are known to be right: without the checks a batch of 64 is up to a tenth faster.
            self._pool.rollout(
                [self._model] * m,
                self._scratch,
                state,
                np.repeat(action[:, None], substeps, axis=1),
                control_spec=_CONTROL,
                skip_checks=True,
                nstep=substeps,
                state=states,
                sensordata=sensors,
            )
        return states[:, -1].copy(), sensors[:, -1].copy()


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
    """Silence what is said while an official package is imported or its model compiled: it is not ours to change."""
    mujoco.set_mju_user_warning(lambda _: None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        mujoco.set_mju_user_warning(_log)


def _log(message: str) -> None:
    logging.getLogger(__name__).warning("MuJoCo: %s", message)
