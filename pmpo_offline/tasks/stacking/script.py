"""Scripted pick-and-place behaviours, good and systematically bad, as memoryless feedback.

The script reads the next motion off the present state alone. A script with hidden phases cannot be cloned by a
policy that sees the state only; this one can, and what its variants do wrong shows in the states they reach.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pmpo_offline.tasks.stacking.scene import BLUE, GREEN, RED, Array
from pmpo_offline.tasks.stacking.simulation import ACTION_DIM, ACTION_SCALE, CONTROL_PERIOD, TCP_HEIGHT, Scene
from pmpo_offline.tasks.task import Behavior

_TRAVEL = 0.20  # metres: height of the joint when out of the way
_NOISE_MEMORY = 0.7  # autocorrelation of the action noise from step to step


class StackingBehavior(Behavior):
    """One scripted behaviour, as declared in a dataset's TOML."""

    noise: float = Field(default=0.0, ge=0)
    """Standard deviation of the autocorrelated action noise, in units of full scale."""
    target: Literal["blue", "green"] = "blue"
    """What red is stacked on."""
    drop: float = Field(default=0.0, ge=0)
    """Release red while it is still this far (metres) from the target, sideways; 0 never."""
    offset: float = Field(default=0.0, ge=0)
    """Constant offset of every grasp along the fingers' broad side, metres."""
    knock: bool = False
    """After releasing red, sweep sideways at red's height and knock the stack over."""
    clings: bool = False
    """Never release red: once it is stacked, lift it off again."""


@dataclass(frozen=True)
class Script:
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
        return cls(
            target=np.array([BLUE if b.target == "blue" else GREEN for b in behaviors]),
            drop=np.array([b.drop for b in behaviors]),
            offset=np.array([b.offset for b in behaviors]),
            knock=np.array([b.knock for b in behaviors]),
            clings=np.array([b.clings for b in behaviors]),
            noise=np.array([b.noise for b in behaviors]),
        )

    def take(self, index: NDArray[np.intp]) -> Script:
        """Return the rows `index`."""
        return Script(*(getattr(self, f.name)[index] for f in fields(self)))

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
        here = np.column_stack([scene.setpoint[:, :3], scene.setpoint[:, 3]])
        goal = here.copy()
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
