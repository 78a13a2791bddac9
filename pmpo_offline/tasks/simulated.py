"""Simulated tasks: batched physics, the loop that plays episodes, and their collection in parallel.

An episode is a function of its own seed and the recipe: neither its neighbours in a batch nor the number of workers nor
the chunk it falls into changes a bit of it.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import mujoco
import numpy as np
from mujoco import rollout
from numpy.typing import NDArray

from pmpo_offline.data import Experience
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.processes import completed
from pmpo_offline.tasks.task import SEEDS_APART, CollectionSpec, Outcome
from pmpo_offline.tasks.trajectories import Recorder

if TYPE_CHECKING:
    from pmpo_offline.policies import Policy

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
Index = NDArray[np.intp]


def log_warning(message: str) -> None:
    """Log a warning of MuJoCo's, which would otherwise be written to a file in the working directory."""
    logging.getLogger(__name__).warning("MuJoCo: %s", message)


class Physics:
    """Native threads that advance many MuJoCo states in one call; results do not depend on their number.

    Args:
        model: the largest of the models that will be simulated, for which the threads' scratch memory is allocated.
        threads: how many share a batch.
    """

    def __init__(self, model: mujoco.MjModel, threads: int) -> None:
        mujoco.set_mju_user_warning(log_warning)
        self._scratch = [mujoco.MjData(model) for _ in range(max(threads, 1))]
        self._pool = rollout.Rollout(nthread=threads if threads > 1 else 0)

    def advance(
        self, models: Sequence[mujoco.MjModel], state: Array, control: Array, substeps: int
    ) -> tuple[Array, Array]:
        """Return the states (m, S) and sensors after `substeps` physics steps under constant `control`, (m, nu)."""
        if not len(models):
            return state.copy(), np.empty((0, self._scratch[0].sensordata.size))
        states = np.empty((len(models), substeps, state.shape[1]))
        sensors = np.empty((len(models), substeps, models[0].nsensordata))
        # The shapes are right: without rollout's own checks a batch of 64 is up to a tenth faster.
        self._pool.rollout(
            models,
            self._scratch,
            state,
            np.repeat(control[:, None], substeps, axis=1),
            control_spec=mujoco.mjtState.mjSTATE_CTRL.value,
            skip_checks=True,
            nstep=substeps,
            state=states,
            sensordata=sensors,
        )
        return states[:, -1].copy(), sensors[:, -1].copy()


@dataclass(frozen=True)
class Step:
    """The results of one control step of m episodes."""

    observation: Array
    """(m, O), after the action; of an ended episode the final one."""
    reward: Array
    """(m,)."""
    terminated: Bools
    """(m,): the task has ended the episode."""
    truncated: Bools
    """(m,): the episode is as long as the horizon. As in Gymnasium both may be true of a last step."""

    @property
    def done(self) -> Bools:
        """(m,): whether the episode is over."""
        return self.terminated | self.truncated


class Episodes(Protocol):
    """n episodes that are simulated side by side, at their beginnings."""

    observation: Array
    """(n, O): the newest of each episode."""
    action_dim: int
    """A."""
    success_ends: bool
    """Whether an episode that the task ends was a success; otherwise the task has no notion of success."""

    @property
    def horizon(self) -> int:
        """Control steps after which an episode is truncated."""
        ...

    def __len__(self) -> int:
        """Return n."""
        ...

    def step(self, action: Array, index: Index) -> Step:
        """Apply actions (m, A), clipped to [-1, 1], to the episodes `index`, (m,)."""
        ...


Choose = Callable[[Index, int], Array]
"""From the running episodes, (m,), and the time step: their actions, (m, A)."""
Watch = Callable[[Index, int, Array, Step], None]
"""Called after every step with the episodes that acted, (m,), the time step, the actions, (m, A), and the results."""


def play(episodes: Episodes, choose: Choose, watch: Watch | None = None) -> Outcome:
    """Play every episode to its end."""
    n, horizon = len(episodes), episodes.horizon
    returns, length, terminated = np.zeros(n), np.zeros(n, np.int64), np.zeros(n, np.bool_)
    active = np.arange(n)
    for t in range(horizon):
        action = choose(active, t)
        step = episodes.step(action, active)
        if watch:
            watch(active, t, action, step)
        returns[active] += step.reward
        length[active] += 1
        terminated[active] = step.terminated
        active = active[~step.done]
        progress.report("play episodes", t + 1, horizon)
        if not len(active):
            break
    progress.report("play episodes", horizon, horizon)
    return Outcome(returns, length, terminated & episodes.success_ends)


def play_policy(episodes: Episodes, policy: Policy) -> Outcome:
    """Play the episodes, run by run, with R stacked policies: R times the same beginnings; record their trajectories.

    Every step a component of the mixture is drawn and its mean played: the choices are the policy's own, the jitter
    within one is left out. The draws are common to all runs and all algorithms. A policy that diverged acts with zeros.
    """
    import torch

    runs, n = policy.runs, len(episodes) // policy.runs
    device = policy.observation_mean.device
    generator = torch.Generator().manual_seed(0)

    def choose(active: Index, t: int) -> Array:
        # All episodes, also those that are over: products of matrices of equal shapes round alike.
        seen = torch.from_numpy(episodes.observation.astype(np.float32)).view(runs, n, -1)
        uniform = torch.rand(n, generator=generator).to(device)
        with torch.no_grad():
            action = policy(seen.to(device)).component(uniform)
        finite: Array = np.nan_to_num(action.flatten(0, 1).cpu().double().numpy())
        return finite[active]

    recorder = Recorder(len(episodes), episodes.action_dim, episodes.observation.shape[1])
    return replace(play(episodes, choose, recorder), trajectories=recorder.trajectories)


def record(episodes: Episodes, choose: Choose, behavior: Sequence[str], seeds: Sequence[int]) -> Experience:
    """Play the episodes and return every step, episode after episode; `behavior` and `seeds` describe them.

    Actions are clipped, and applied as they are stored, to the last bit: in single precision.
    """
    n, observed = episodes.observation.shape
    observation = np.empty((n, episodes.horizon + 1, observed), np.float32)
    observation[:, 0] = episodes.observation
    action = np.empty((n, episodes.horizon, episodes.action_dim), np.float32)
    reward, terminated = np.empty((n, episodes.horizon), np.float32), np.zeros(n, np.bool_)

    def watch(active: Index, t: int, taken: Array, step: Step) -> None:
        action[active, t], reward[active, t] = taken, step.reward
        observation[active, t + 1], terminated[active] = step.observation, step.terminated

    def applied(active: Index, t: int) -> Array:
        return np.clip(choose(active, t), -1, 1).astype(np.float32).astype(np.float64)

    outcome = play(episodes, applied, watch)
    played = np.arange(episodes.horizon) < outcome.length[:, None]
    return Experience(
        observation=observation[:, :-1][played],
        action=action[played],
        reward=reward[played],
        length=outcome.length,
        success=outcome.success,
        terminated=terminated,
        final_observation=observation[np.arange(n), outcome.length],
        behavior=np.array(behavior),
        seed=np.array(seeds, np.int64),
    )


Record = Callable[[Sequence[int]], Experience]
"""Plays one episode a seed; it is sent to other processes, so it is a function of a module or a `partial` of one."""


def collect(record: Record, spec: CollectionSpec, folder: Path, workers: int, chunk: int = 100) -> Experience:
    """Record the episodes of `spec`, `chunk` of them at once; finished chunks are kept in `folder`, whole or absent.

    One process at a time collects into a folder (the caller holds its lock). Raises `UserError` for more episodes than
    a seed has, and `PmpoOfflineError` if a process was killed, or a kept chunk is damaged or holds other episodes.
    """
    if spec.episodes > SEEDS_APART:
        raise UserError(
            f"{spec.episodes:,} episodes are more than the {SEEDS_APART:,} that a seed has: use several seeds"
        )
    seeds = spec.seeds.tolist()
    folder.mkdir(parents=True, exist_ok=True)
    chunks = {
        folder / f"chunk-{start:07d}.npz": seeds[start : start + chunk] for start in range(0, spec.episodes, chunk)
    }
    missing = {path: own for path, own in chunks.items() if not path.exists()}
    done = spec.episodes - sum(map(len, missing.values()))
    for unfinished in folder.glob(".chunk-*.tmp"):  # of a process that was killed
        unfinished.unlink()
    tasks = [(record, own, _versions()) for own in missing.values()]
    path_of = dict(zip((own[0] for own in missing.values()), missing, strict=True))
    for (_, own, _), experience in completed(_play, tasks, workers, "collected episodes"):
        experience.save(path_of[own[0]])
        done += len(own)
        progress.report("collect episodes", done, spec.episodes)
    return Experience.concatenate((_read_chunk(path, own) for path, own in chunks.items()))


def _versions() -> dict[str, str]:
    """Return the versions that the episodes of every task here depend on."""
    return {name: version(name) for name in ("pmpo-offline", "mujoco", "numpy")}


def _play(record: Record, seeds: Sequence[int], versions: dict[str, str]) -> Experience:
    """Record episodes where these versions are installed; `PmpoOfflineError` on another machine with others."""
    if (here := _versions()) != versions:
        raise PmpoOfflineError(
            f"{platform.node()} has {here}, and episodes are collected with {versions}: install them"
        )
    with progress.on_progress(None):
        return record(seeds)


def _read_chunk(path: Path, seeds: list[int]) -> Experience:
    experience = Experience.load(path)
    if experience.seed.tolist() != seeds:
        raise PmpoOfflineError(f"{path} holds other episodes: delete it and run the same command again")
    return experience
