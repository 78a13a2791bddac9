"""Record control episodes of the shipped behaviours: random actions, a medium or an expert policy, a training record.

The policies are small networks under `datasets/behaviors/<task>/`, trained by `pmpo-offline train-behavior`; they act
with the exploration that they had in training. A training record (`replay`) is the ladder of policies that a learner
went through on its way to medium: each plays equally many episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from pmpo_offline.data.experience import Experience
from pmpo_offline.declarations import catalog
from pmpo_offline.policies.behavior import BehaviorPolicy
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.hashing import hash_file
from pmpo_offline.tasks.collection import SEEDS_APART
from pmpo_offline.tasks.control.episodes import play
from pmpo_offline.tasks.control.registry import rules
from pmpo_offline.tasks.control.simulation import Array, Index, Rules, Step

CHUNK = 50
"""Episodes that are recorded side by side; native stepping is hardly faster with more."""


class Behavior(BaseModel):
    """One way of acting and its share of the episodes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    weight: float = Field(gt=0)
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
    """Return where a task's shipped policy is; `UserError` if it ships none of this kind."""
    path = catalog.root("datasets") / "behaviors" / task / f"{policy}.safetensors"
    if not path.is_file():
        raise UserError(
            f"task {task} ships no {policy} behaviour ({path} is missing): "
            f"make one with pmpo-offline train-behavior {task}"
        )
    return path


def sources(task: str, behaviors: Sequence[Behavior]) -> dict[str, str]:
    """Return the sha256 of every file of weights that the behaviours need."""
    names = sorted({each.policy for each in behaviors} - {"random"})
    return {name: hash_file(weights_file(task, name)) for name in names}


def actors(task: str, behaviors: Sequence[Behavior]) -> list[Actor]:
    """Load the behaviours; a replay becomes one actor a policy of its ladder."""
    total = sum(each.weight for each in behaviors)
    found: list[Actor] = []
    for each in behaviors:
        share = each.weight / total
        if each.policy == "random":
            found.append(Actor(each.name, share))
        elif each.policy == "replay":
            ladder = BehaviorPolicy.load_ladder(weights_file(task, "replay"))
            found += [
                Actor(f"{each.name}-{i}", share / len(ladder), policy, each.noise) for i, policy in enumerate(ladder)
            ]
        else:
            found.append(Actor(each.name, share, BehaviorPolicy.load(weights_file(task, each.policy)), each.noise))
    return found


@cache
def deal(shares: tuple[float, ...], episodes: int) -> list[int]:
    """Return whose turn each of the first episodes is, so that after every one of them the shares are kept best.

    Each goes to whoever is furthest behind: halves take turns, and of 200 episodes ten equal shares have 20 each.
    """
    played = np.zeros(len(shares))
    turns = []
    for i in range(episodes):
        turn = int(np.argmax(np.round(np.asarray(shares) * (i + 1) - played, 9)))
        played[turn] += 1
        turns.append(turn)
    return turns


def record(task: str, behaviors: Sequence[Behavior], seeds: Sequence[int]) -> Experience:
    """Play one episode a seed and return every step of it, episode after episode.

    An episode's behaviour follows from its place in the dataset, which its seed tells. No two seeds may be `CHUNK`
    episodes apart.
    """
    rules, cast = _rules(task), actors(task, behaviors)
    places = [seed % SEEDS_APART for seed in seeds]
    turns = np.array(deal(tuple(actor.share for actor in cast), max(places) + 1))[places]
    n, horizon = len(seeds), rules.horizon
    steps = (n, horizon, rules.action_dim)
    # Drawn ahead, episode by episode: what an episode does is a function of its own seed.
    draws = np.empty(steps)
    slots = np.array(places) % CHUNK
    for episode, (seed, turn) in enumerate(zip(seeds, turns, strict=True)):
        rng = np.random.default_rng(seed)
        draws[episode] = rng.uniform(-1, 1, steps[1:]) if cast[turn].policy is None else rng.standard_normal(steps[1:])

    def choose(observation: Array, t: int) -> Array:
        # Equally many rows, each in its own place: a product of matrices of another shape rounds otherwise, and an
        # episode shall not depend on its neighbours.
        seen = np.zeros((CHUNK, observation.shape[1]))
        seen[slots] = observation
        action = draws[:, t].copy()
        for turn in np.unique(turns):
            actor, own = cast[turn], turns == turn
            if actor.policy is not None:
                spread = actor.noise * np.exp(actor.policy.log_std.astype(np.float64))
                action[own] = actor.policy.mean(seen)[slots[own]] + spread * action[own]
        # What is stored is what was applied, to the last bit.
        return np.clip(action, -1, 1).astype(np.float32).astype(np.float64)

    observation = np.empty((n, horizon + 1, rules.observation_dim), np.float32)
    action, reward = np.empty(steps, np.float32), np.empty(steps[:2], np.float32)
    terminated = np.zeros(n, np.bool_)

    def watch(active: Index, t: int, seen: Array, taken: Array, step: Step) -> None:
        observation[active, t], observation[active, t + 1] = seen, step.observation
        action[active, t], reward[active, t] = taken, step.reward
        terminated[active] = step.terminated

    outcome = play(rules, seeds, choose, watch=watch)
    played = np.arange(horizon) < outcome.length[:, None]
    return Experience(
        observation=observation[:, :-1][played],
        action=action[played],
        reward=reward[played],
        length=outcome.length,
        success=outcome.success,
        terminated=terminated,
        final_observation=observation[np.arange(n), outcome.length],
        behavior=np.array([cast[turn].name for turn in turns]),
        seed=np.array(seeds, np.int64),
    )


@cache
def _rules(task: str) -> Rules:
    """Return the rules, loaded once a process: dm_control takes a second to import."""
    return rules(task)
