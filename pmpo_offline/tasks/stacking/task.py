"""The stacking task: scripted pick-and-place behaviours, their collection, scoring and the reference scores.

The behaviours are good and systematically bad. A script reads the next motion off the present state alone: a policy
that sees the state only could not clone a script with hidden phases. What the variants do wrong shows in the states
they reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pmpo_offline.data import Experience
from pmpo_offline.tasks import simulated
from pmpo_offline.tasks.simulated import Index, play, play_policy
from pmpo_offline.tasks.stacking.scene import (
    BLUE,
    GREEN,
    RED,
    TRIPLETS,
    Array,
    Layout,
    random_layout,
    random_triplet,
)
from pmpo_offline.tasks.stacking.simulation import (
    ACTION_DIM,
    ACTION_SCALE,
    CONTROL_PERIOD,
    HORIZON,
    OBSERVATION_DIM,
    TCP_HEIGHT,
    Rows,
    Scene,
    StackingSimulation,
)
from pmpo_offline.tasks.task import Behavior, CollectionSpec, Outcome, Task
from pmpo_offline.tasks.trajectories import Picture

if TYPE_CHECKING:
    from pmpo_offline.policies import Policy

_HELD_OUT_SEED = 7_310_000_000  # in no dataset: these layouts are of the test triplets
_TRAVEL = 0.20  # metres: height of the joint when out of the way
_NOISE_MEMORY = 0.7  # autocorrelation of the action noise from step to step


class StackingBehavior(Behavior):
    """One scripted behaviour, as declared in a dataset's TOML."""

    noise: float = Field(default=0.0, ge=0)
    """Standard deviation of the autocorrelated action noise, in units of full scale."""
    target: Literal["blue", "green"] = "blue"
    """The object that red is stacked on."""
    drop: float = Field(default=0.0, ge=0)
    """Release red while it is still this far (metres) from the target, sideways; 0 never."""
    offset: float = Field(default=0.0, ge=0)
    """Constant offset of every grasp along the fingers' broad side, metres."""
    knock: bool = False
    """After releasing red, sweep sideways at red's height and knock the stack over."""
    clings: bool = False
    """Never release red: once it is stacked, lift it off again."""


@dataclass(frozen=True)
class Script(Rows):
    """The behaviours of n episodes at once; each field of `StackingBehavior` as an array."""

    target: NDArray[np.intp]
    drop: Array
    offset: Array
    knock: NDArray[np.bool_]
    clings: NDArray[np.bool_]
    noise: Array

    @classmethod
    def of(cls, behaviors: list[StackingBehavior]) -> Script:
        """Tabulate one behaviour an episode."""
        columns = {name: np.array([getattr(behavior, name) for behavior in behaviors]) for name in cls.__annotations__}
        return cls(**columns | {"target": np.where(columns["target"] == "blue", BLUE, GREEN)})

    def act(self, scene: Scene) -> Array:
        """Return the noise-free actions in n states, (n, 5) in [-1, 1]."""
        fetch, fetch_grip = self._fetch(scene)
        carry, carry_grip = self._carry(scene)
        leave, leave_grip = self._leave(scene)
        rows = np.arange(len(self.target))
        rests = np.where(self.target == BLUE, scene.rests_on(BLUE), scene.rests_on(GREEN))
        which = np.where(rests, 2, np.where(scene.held, 1, 0))
        goal = np.stack([fetch, carry, leave])[which, rows]
        grip = np.stack([fetch_grip, carry_grip, leave_grip])[which, rows]

        velocity = (goal - scene.setpoint[:, :4]) / CONTROL_PERIOD / ACTION_SCALE[:4]
        action = np.empty((len(rows), ACTION_DIM))
        action[:, :4] = np.clip(velocity, -1, 1)
        gentle = (which == 1) | (scene.tcp[:, 2] < 0.08)
        action[:, 2] = np.where(gentle, np.clip(action[:, 2], -0.4, 1.0), action[:, 2])
        action[:, 4] = grip
        return action

    def _fetch(self, scene: Scene) -> tuple[Array, Array]:
        """Red is not in the hand: align above it, come down in a funnel, close at the bottom."""
        red, yaw = scene.position[:, RED], scene.yaw
        broad = np.stack([np.cos(yaw), np.sin(yaw)], axis=1)  # the hand's x axis, along the pads
        place = red[:, :2] + self.offset[:, None] * broad
        miss = np.linalg.norm(place - scene.tcp[:, :2], axis=1)
        turn = scene.grasp_error[:, RED]
        depth = np.maximum(red[:, 2] - 0.002, 0.018)
        above = np.minimum(0.07, 8 * np.maximum(0, miss - 0.004) + 0.6 * np.maximum(0, np.abs(turn) - 0.05))
        # Closed on nothing: open before coming down again.
        empty = (scene.fingers.max(axis=1) < 0.006) & ~scene.held
        above = np.where(empty, 0.07, above)
        goal = np.column_stack([place, depth + above - TCP_HEIGHT, yaw + turn])
        there = (miss < 0.006) & (np.abs(turn) < 0.08) & (np.abs(scene.tcp[:, 2] - depth) < 0.006)
        return goal, np.where(there & ~empty, -1.0, 1.0)

    def _carry(self, scene: Scene) -> tuple[Array, Array]:
        """Red is in the hand: lift it, move it over the target, lower it in a funnel."""
        gap = np.where((self.target == BLUE)[:, None], scene.offset(BLUE), scene.offset(GREEN))
        side = np.linalg.norm(gap[:, :2], axis=1)
        clearance = -gap[:, 2]
        wanted = np.clip(3 * (side - 0.004), -0.002, 0.04)
        firm = np.clip(scene.force.min(axis=1) / 3.0, 0, 1)  # let the fingers close before pulling
        free = np.clip((clearance - np.minimum(wanted, 0.03) + 0.012) / 0.01, 0, 1)  # do not run into the target
        goal = scene.setpoint[:, :4].copy()
        goal[:, :2] += gap[:, :2] * free[:, None]
        goal[:, 2] += (wanted - clearance) * firm
        lost = (self.drop > 0) & (side < self.drop) & (clearance > 0.015)
        return goal, np.where(lost, 1.0, -1.0)

    def _leave(self, scene: Scene) -> tuple[Array, Array]:
        """Red rests on the target: open, then rise straight up."""
        goal = scene.setpoint[:, :4].copy()
        clear = scene.released & (scene.fingers.min(axis=1) > 0.03 - 0.01)
        goal[:, 2] = np.where(clear, _TRAVEL, goal[:, 2])
        closing = np.stack([-np.sin(scene.yaw), np.cos(scene.yaw)], axis=1)  # the hand's y axis: the fingers' line
        sweep = self.knock & scene.released
        goal[:, 2] = np.where(sweep, scene.setpoint[:, 2], goal[:, 2])
        goal[:, :2] += np.where(sweep[:, None], 0.1 * closing, 0.0)
        goal[:, 2] += np.where(self.clings, 0.1, 0.0)
        return goal, np.where(self.clings, -1.0, 1.0)


def correlated_noise(scale: Array, steps: int, rng: np.random.Generator) -> Array:
    """Draw first-order autocorrelated action noise, (*scale.shape, steps, 5), of about the deviation `scale`."""
    fresh = rng.normal(size=(*scale.shape, steps, ACTION_DIM)) * scale[..., None, None] * _NOISE_MEMORY
    for t in range(1, steps):
        fresh[..., t, :] += _NOISE_MEMORY * fresh[..., t - 1, :]
    return fresh


def held_out_layouts(episodes: int, seed: int = _HELD_OUT_SEED) -> tuple[list[Layout], list[str]]:
    """Return the layouts that policies are scored on, cycling through the test triplets, and the triplets' names."""
    names = [list(TRIPLETS)[i % len(TRIPLETS)] for i in range(episodes)]
    return [random_layout(np.random.default_rng(seed + i), TRIPLETS[name]) for i, name in enumerate(names)], names


def record(behaviors: Sequence[StackingBehavior], seeds: Sequence[int]) -> Experience:
    """Play one episode a seed and return every step of it, episode after episode."""
    weights = np.array([behavior.weight for behavior in behaviors])
    layouts: list[Layout] = []
    chosen: list[StackingBehavior] = []
    noise = np.empty((len(seeds), HORIZON, ACTION_DIM))
    for i, seed in enumerate(seeds):
        rng = np.random.default_rng(seed)
        chosen.append(behaviors[rng.choice(len(behaviors), p=weights / weights.sum())])
        layouts.append(random_layout(rng, random_triplet(rng)))
        noise[i] = correlated_noise(np.array(chosen[-1].noise), HORIZON, rng)
    simulation, script = StackingSimulation(layouts), Script.of(chosen)

    def choose(active: Index, t: int) -> Array:
        noisy: Array = script.take(active).act(simulation.scene(active)) + noise[active, t]
        return noisy

    return simulated.record(simulation, choose, [behavior.name for behavior in chosen], seeds)


class StackingTask(Task):
    """Stack red on blue; `rgb-stacking/proxy`."""

    id = "rgb-stacking/proxy"
    simulators: tuple[str, ...] = ("mujoco",)
    observation_dim = OBSERVATION_DIM
    action_dim = ACTION_DIM

    def collect(self, spec: CollectionSpec, folder: Path, workers: int) -> Experience:
        """Record episodes of the declared behaviours; `UserError` if the declaration is malformed."""
        behaviors = tuple(StackingBehavior.parse(self.id, spec.behaviors))
        return simulated.collect(partial(record, behaviors), spec, folder, workers)

    def score(self, policy: Policy, episodes: int, threads: int) -> tuple[Outcome, list[str]]:
        """Play the held-out layouts with every stacked policy; outcomes are run by run, (runs * episodes,)."""
        layouts, names = held_out_layouts(episodes)
        return play_policy(StackingSimulation(layouts * policy.runs, threads), policy), names

    def draw(self, observation: NDArray[np.float32]) -> Sequence[Picture]:
        """Draw the gripper and the objects from the front."""
        from pmpo_offline.tasks.stacking import picture  # scipy, which no process that collects needs

        return picture.draw(observation)

    def references(self, episodes: int, seed: int, threads: int) -> tuple[Outcome, Outcome]:
        """Play uniformly random actions, 0 of the normalized score, and the noise-free script, 100."""
        layouts, _ = held_out_layouts(episodes, _HELD_OUT_SEED + 1_000_000 * (1 + seed))
        rng = np.random.default_rng(seed)
        script = Script.of([StackingBehavior(name="noise-free", weight=1)] * episodes)
        simulation = StackingSimulation(layouts, threads)

        random = play(
            StackingSimulation(layouts, threads), lambda active, t: rng.uniform(-1, 1, (episodes, ACTION_DIM))[active]
        )
        return random, play(simulation, lambda active, t: script.take(active).act(simulation.scene(active)))
