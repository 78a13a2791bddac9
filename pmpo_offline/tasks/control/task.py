"""A control task: its shipped behaviours, their collection, scoring of policies and the reference scores.

A behaviour acts at random, as a medium or an expert policy, or as a training record (`replay`): the ladder of policies
that a learner went through on its way to medium, each of which plays equally many episodes. The policies are small
networks under `datasets/behaviors/<task>/`, trained by `pmpo-offline train-behavior`; they act with the exploration
that they had in training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pmpo_offline.data import Experience
from pmpo_offline.declarations import catalog
from pmpo_offline.policies.behavior import BehaviorPolicy
from pmpo_offline.runtime.errors import UserError, unknown
from pmpo_offline.runtime.hashing import hash_file
from pmpo_offline.tasks import simulated
from pmpo_offline.tasks.control import dm_suite, gymnasium_v5
from pmpo_offline.tasks.control.planar import Tree
from pmpo_offline.tasks.control.simulation import Rules, begin, play
from pmpo_offline.tasks.simulated import Array, Index, play_policy
from pmpo_offline.tasks.task import SEEDS_APART, Behavior, CollectionSpec, Outcome, Task
from pmpo_offline.tasks.trajectories import Picture

if TYPE_CHECKING:
    from pmpo_offline.policies import Policy

CHUNK = 50
"""Episodes that are recorded side by side; native stepping is hardly faster with more."""

_HELD_OUT = 7_310_000_000_000_000  # beyond the seeds of every dataset, which are below 2^31 million


SEEN = ("dm_control/cheetah-run", "dm_control/hopper-hop", *(f"mujoco/{name}" for name in gymnasium_v5.TASKS))
"""Tasks whose observation begins with all positions of the joints but the horizontal one."""

RULES: dict[str, Callable[[], Rules]] = {
    **{f"dm_control/{name}": partial(dm_suite.rules, name) for name in dm_suite.TASKS},
    **{f"mujoco/{name}": partial(gymnasium_v5.rules, name) for name in gymnasium_v5.TASKS},
}
"""Factories of the rules of a task, by its id."""


def rules(name: str) -> Rules:
    """Return the rules of the task `name`; `UserError` with the near misses if there is none.

    Each call loads the official environment again: the rules hold it to draw beginnings, and belong to one thread.
    """
    if name not in RULES:
        raise unknown("control task", name, RULES)
    return RULES[name]()


def held_out(episodes: int, stream: int = 0) -> list[int]:
    """Return seeds that no dataset has; each stream has its own."""
    first = _HELD_OUT + 1_000_000 * stream
    return list(range(first, first + episodes))


class ControlBehavior(Behavior):
    """A shipped behaviour, as declared in a dataset's TOML."""

    policy: Literal["random", "medium", "expert", "replay"]
    noise: float = Field(default=1.0, ge=0)
    """Deviation of the actions from the policy's mean, in multiples of its own."""


@dataclass(frozen=True)
class Actor:
    """A behaviour with its weights; without a policy its actions are uniformly random."""

    name: str
    share: float
    """Of all episodes; shares add up to one."""
    policy: BehaviorPolicy | None = None
    noise: float = 1.0


def weights_file(task: str, policy: str) -> Path:
    """Return the path of a task's shipped policy; `UserError` if it ships none of this kind."""
    path = catalog.root("datasets") / "behaviors" / task / f"{policy}.safetensors"
    if not path.is_file():
        raise UserError(
            f"task {task} ships no {policy} behaviour ({path} is missing): "
            f"make one with pmpo-offline train-behavior {task}"
        )
    return path


def actors(task: str, behaviors: Sequence[ControlBehavior]) -> list[Actor]:
    """Load the behaviours; a replay becomes one actor a policy of its ladder."""
    total = sum(behavior.weight for behavior in behaviors)
    cast: list[Actor] = []
    for behavior in behaviors:
        name, share, noise = behavior.name, behavior.weight / total, behavior.noise
        if behavior.policy == "random":
            cast.append(Actor(name, share))
        elif behavior.policy == "replay":
            ladder = BehaviorPolicy.load_ladder(weights_file(task, "replay"))
            cast += [Actor(f"{name}-{i}", share / len(ladder), policy, noise) for i, policy in enumerate(ladder)]
        else:
            cast.append(Actor(name, share, BehaviorPolicy.load(weights_file(task, behavior.policy)), noise))
    return cast


@cache
def deal(shares: tuple[float, ...], episodes: int) -> list[int]:
    """Return the behaviour of each of the first episodes, so that after every one of them the shares are kept best.

    Each episode goes to the behaviour with the largest deficit: halves take turns, and of 200 episodes ten equal shares
    have 20 each.
    """
    played = np.zeros(len(shares))
    turns = []
    for i in range(episodes):
        turn = int(np.argmax(np.round(np.asarray(shares) * (i + 1) - played, 9)))
        played[turn] += 1
        turns.append(turn)
    return turns


_rules = cache(rules)
"""Rules by task, loaded once a process: dm_control takes a second to import."""


def record(task: str, behaviors: Sequence[ControlBehavior], seeds: Sequence[int]) -> Experience:
    """Play one episode a seed and return every step of it, episode after episode.

    An episode's behaviour follows from its place in the dataset, which is part of its seed. No two seeds may be `CHUNK`
    episodes apart.
    """
    played, cast = _rules(task), actors(task, behaviors)
    places = [seed % SEEDS_APART for seed in seeds]
    turns = np.array(deal(tuple(actor.share for actor in cast), max(places) + 1))[places]
    slots = np.array(places) % CHUNK
    # Drawn ahead, episode by episode: an episode is a function of its own seed.
    steps = (played.horizon, played.action_dim)
    draws = np.empty((len(seeds), *steps))
    for episode, (seed, turn) in enumerate(zip(seeds, turns, strict=True)):
        rng = np.random.default_rng(seed)
        draws[episode] = rng.uniform(-1, 1, steps) if cast[turn].policy is None else rng.standard_normal(steps)
    simulation = begin(played, seeds)

    def choose(active: Index, t: int) -> Array:
        # Always the same number of rows, each at its own place: a product of matrices of another shape rounds
        # otherwise, and an episode must not depend on its neighbours.
        seen = np.zeros((CHUNK, simulation.observation.shape[1]))
        seen[slots] = simulation.observation
        action = draws[:, t].copy()
        for turn in np.unique(turns):
            actor, own = cast[turn], turns == turn
            if actor.policy is not None:
                spread = actor.noise * np.exp(actor.policy.log_std.astype(np.float64))
                action[own] = actor.policy.mean(seen)[slots[own]] + spread * action[own]
        return action[active]

    return simulated.record(simulation, choose, [cast[turn].name for turn in turns], seeds)


class ControlTask(Task):
    """One of dm_control's or Gymnasium's tasks, such as `dm_control/cheetah-run` and `mujoco/hopper`."""

    def __init__(self, name: str) -> None:
        self.id = name
        self.simulators = ("mujoco", "dm_control" if name.startswith("dm_control/") else "gymnasium")

    @cached_property
    def rules(self) -> Rules:
        """The task's rules; loading them takes a second."""
        return rules(self.id)

    @property
    def observation_dim(self) -> int:
        """O."""
        return self.rules.observation_dim

    @property
    def action_dim(self) -> int:
        """A."""
        return self.rules.action_dim

    def sources(self, behaviors: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """Return the sha256 of the weights that the declared behaviours act with."""
        names = sorted({behavior.policy for behavior in ControlBehavior.parse(self.id, behaviors)} - {"random"})
        return {name: hash_file(weights_file(self.id, name)) for name in names}

    def collect(self, spec: CollectionSpec, folder: Path, workers: int) -> Experience:
        """Record episodes of the declared behaviours; `UserError` if one is malformed or its weights are missing."""
        behaviors = tuple(ControlBehavior.parse(self.id, spec.behaviors))
        actors(self.id, behaviors)  # so that missing weights are reported here, not by a process
        return simulated.collect(partial(record, self.id, behaviors), spec, folder, workers, CHUNK)

    def score(self, policy: Policy, episodes: int, threads: int) -> tuple[Outcome, list[str]]:
        """Play held-out beginnings with every stacked policy; outcomes are run by run, (runs * episodes,)."""
        simulation = begin(self.rules, held_out(episodes) * policy.runs, threads)
        return play_policy(simulation, policy), [self.id] * episodes

    def draw(self, observation: NDArray[np.float32]) -> Sequence[Picture]:
        """Draw the runners and hoppers, which observe all positions but the horizontal one, from the side."""
        if self.id not in SEEN:
            return []
        unseen = np.zeros((len(observation), 1))
        return Tree.of(self.rules.model).draw(np.hstack([unseen, observation[:, : self.rules.model.nq - 1]]))

    def references(self, episodes: int, seed: int, threads: int) -> tuple[Outcome, Outcome]:
        """Play uniformly random actions, 0 of the normalized score, and the shipped expert's mean, 100."""
        seeds, shape = held_out(episodes, stream=1 + seed), (episodes, self.action_dim)
        rng, expert = np.random.default_rng(seed), BehaviorPolicy.load(weights_file(self.id, "expert"))
        random = play(self.rules, seeds, lambda *_: rng.uniform(-1, 1, shape), threads=threads)
        return random, play(self.rules, seeds, lambda observation, _: expert.mean(observation), threads=threads)
