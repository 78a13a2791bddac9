"""The protocol that every task implements, and the registry of tasks.

A task collects experience and scores policies; nothing else (storage, labels, training, statistics) depends on tasks. A
dataset's declaration names a task (`task = "bandit/sphere"`) and describes the behaviours that it is collected from; a
policy trained on the dataset is scored by the task again.

Another package adds a task by an entry point, whose name is the task's id and which is called without arguments::

    [project.entry-points."pmpo_offline.tasks"]
    "mine/target" = "my_package:TargetTask"

The least that works is a class of about forty lines: subclass `Task` (for the defaults of `sources` and `candidates`)
or just have its attributes. Here is a bandit in which an action is worth its negative distance from 0.3::

    class Drawn(Behavior):                      # a [[behavior]] of a declaration: name, weight, and what it adds
        std: float = Field(default=0.5, gt=0)

    class TargetTask(Task):
        id = "mine/target"
        simulators = ("my-package",)            # their versions are part of a dataset's identity
        observation_dim = 1
        action_dim = 2

        def collect(self, spec, folder, workers):
            mixture, rng = Drawn.parse(self.id, spec.behaviors), np.random.default_rng(spec.seed)
            weight = np.array([behavior.weight for behavior in mixture])
            chosen = rng.choice(len(mixture), spec.episodes, p=weight / weight.sum())
            std = np.array([behavior.std for behavior in mixture])[chosen, None]
            action = (std * rng.standard_normal((spec.episodes, self.action_dim))).clip(-1, 1).astype(np.float32)
            reward = self.reward(action)
            nothing = np.zeros((spec.episodes, self.observation_dim), np.float32)
            return Experience(
                observation=nothing, action=action, reward=reward, length=np.ones(spec.episodes, np.int64),
                success=reward > -0.1, terminated=np.ones(spec.episodes, np.bool_), final_observation=nothing,
                behavior=np.array([mixture[i].name for i in chosen]), seed=spec.seeds,
            )

        def score(self, policy, episodes, threads):
            with torch.no_grad():
                action = policy(torch.zeros(policy.runs, episodes, self.observation_dim)).mode()
            return self.outcome(torch.nan_to_num(action).flatten(0, 1).numpy()), [self.id] * episodes

        def references(self, episodes, seed, threads):
            random = np.random.default_rng(seed).uniform(-1, 1, (episodes, self.action_dim))
            return self.outcome(random), self.outcome(np.full_like(random, 0.3))

        def reward(self, action):
            return -np.linalg.norm(action - 0.3, axis=-1).astype(np.float32)

        def outcome(self, action):
            reward = self.reward(action)
            return Outcome(reward.astype(np.float64), np.ones(len(reward), np.int64), reward > -0.1)

Everything is NumPy but the policy, a stack of R policies for R training runs (`policies.MixturePolicy`). What a task
returns must be a pure function of its arguments: neither `workers` nor `threads` may change a bit of it. A task of many
steps that takes a while to simulate gets parallel collection, in chunks that survive a kill, from `simulated`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from pmpo_offline.data import Experience
from pmpo_offline.runtime.arguments import validated
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.registry import Registry
from pmpo_offline.tasks.trajectories import Picture, Trajectories

if TYPE_CHECKING:
    from pmpo_offline.policies import Policy

SEEDS_APART = 1_000_000
"""Seeds of episodes that a dataset's seed has to itself."""


@dataclass(frozen=True)
class CollectionSpec:
    """A collection; the experience is a function of it and of the task."""

    behaviors: Sequence[Mapping[str, Any]]
    """The [[behavior]] tables of a dataset's declaration."""
    episodes: int
    seed: int

    @property
    def seeds(self) -> NDArray[np.int64]:
        """(episodes,): a seed for each episode; up to `SEEDS_APART` of them are in no dataset of another seed."""
        return self.seed * SEEDS_APART + np.arange(self.episodes)


@dataclass(frozen=True)
class Outcome:
    """The ends of n episodes."""

    returns: NDArray[np.float64]
    """(n,), undiscounted."""
    length: NDArray[np.int64]
    """(n,)."""
    success: NDArray[np.bool_]
    """(n,): whether the task was solved; all False in tasks without a notion of success."""
    trajectories: Trajectories | None = None
    """Some steps of each, for reports; None where none were recorded."""


@dataclass(frozen=True)
class ScoredCandidates:
    """K candidate actions at each of S recorded steps, with their true values."""

    row: NDArray[np.int64]
    """(S,), ascending: the step that holds the state."""
    action: NDArray[np.float32]
    """(S, K, A)."""
    score: NDArray[np.float32]
    """(S, K)."""


class Behavior(BaseModel):
    """One behaviour of the mixture that collects a dataset: a [[behavior]] table of its declaration."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    weight: float = Field(gt=0)
    """Share of the episodes, relative to the other behaviours."""

    @classmethod
    def parse(cls, task: str, declared: Sequence[Mapping[str, Any]]) -> list[Self]:
        """Return the declared behaviours; `UserError` for a malformed one, and if there is none."""
        if not declared:
            raise UserError(f"task {task} needs at least one [[behavior]] to collect from")
        return [validated(cls, table, f"task {task}: behavior") for table in declared]


class Task(Protocol):
    """A task; `tasks.get` makes one by its id."""

    id: str
    simulators: tuple[str, ...]
    """Names of the installed packages whose versions the experience depends on."""

    @property
    def observation_dim(self) -> int:
        """O."""
        ...

    @property
    def action_dim(self) -> int:
        """A; actions are in [-1, 1]."""
        ...

    def sources(self, behaviors: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """Return the sha256 of every file, by a short name, that the declared behaviours read; default: none."""
        return {}

    def collect(self, spec: CollectionSpec, folder: Path, workers: int) -> Experience:
        """Record episodes of the declared behaviours.

        Args:
            spec: what to record.
            folder: where finished parts may be kept, so that an interrupted collection can be resumed; it belongs to
                this spec alone.
            workers: processes to use; they do not change the result.

        Raises:
            UserError: a behaviour is malformed.
        """
        ...

    def candidates(
        self, spec: CollectionSpec, experience: Experience, states: int, actions: int
    ) -> ScoredCandidates | None:
        """Draw `actions` from the behaviour at (up to) `states` recorded steps and return their true values.

        Default: None, for tasks whose action values are unknown; critics estimate them.
        """
        return None

    def score(self, policy: Policy, episodes: int, threads: int) -> tuple[Outcome, list[str]]:
        """Play held-out episodes with each of R stacked policies, the same ones for every policy.

        A policy that diverged (its actions are NaN) is scored too, not refused.

        Returns:
            Outcomes run by run, (R * episodes,), and the names of the episodes' layouts, (episodes,).
        """
        ...

    def draw(self, observation: NDArray[np.float32]) -> Sequence[Picture]:
        """Draw the states that are observed, (T, O), for reports, T pictures.

        Default: none, for tasks whose observations are not of a scene; reports have charts of them.
        """
        return []

    def references(self, episodes: int, seed: int, threads: int) -> tuple[Outcome, Outcome]:
        """Measure the policies that define 0 and 100 of the normalized score."""
        ...


def _bandit(name: str) -> Task:
    from pmpo_offline.tasks.bandit import BANDITS, BanditTask

    return BanditTask(BANDITS[name])


def _control(name: str) -> Task:
    from pmpo_offline.tasks.control import ControlTask

    return ControlTask(name)


CONTROL_TASKS = (
    "dm_control/cartpole-swingup",
    "dm_control/cheetah-run",
    "dm_control/walker-walk",
    "dm_control/finger-spin",
    "dm_control/reacher-easy",
    "dm_control/hopper-hop",
    "mujoco/halfcheetah",
    "mujoco/hopper",
    "mujoco/walker2d",
)

TASKS: Registry[Callable[[], Task]] = Registry(
    "task",
    "pmpo_offline.tasks",
    {
        "rgb-stacking/proxy": "pmpo_offline.tasks.stacking.task:StackingTask",
        **{f"bandit/{name}": partial(_bandit, name) for name in ("sphere", "rosenbrock", "schwefel", "gmm")},
        **{name: partial(_control, name) for name in CONTROL_TASKS},
    },
)
"""Factories of tasks by id; simulators are imported when a task is made."""


def get(name: str) -> Task:
    """Return the task of this id; `UserError` with the near misses if there is none."""
    return TASKS[name]()
