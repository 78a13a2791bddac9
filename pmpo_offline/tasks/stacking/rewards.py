"""The staged reward and the success of stacking red on blue."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pmpo_offline.tasks.stacking.simulation import Array, Scene

RED, GREEN, BLUE = 0, 1, 2
HOLD_STEPS = 5
"""Control steps for which success must last before the episode ends."""


def stage(scene: Scene) -> tuple[Array, NDArray[np.bool_]]:
    """Rate n states by how far the task has come.

    Returns:
        The stage, (n,), in [0, 1]: reach < .2, grasp < .3, lift < .45, hover < .7, stacked but held .75, let go .9,
        fingers clear 1; and whether the state counts as success, (n,).
    """
    red = scene.position[:, RED]
    height = np.clip((red[:, 2] - scene.geometry.half_height[:, RED]) / 0.05, 0, 1)
    reach = 1 - np.tanh(8 * np.linalg.norm(scene.tcp - red, axis=1))
    lift = height * scene.held
    hover = lift * (1 - np.tanh(8 * np.linalg.norm(scene.offset(BLUE)[:, :2], axis=1)))

    stacked = scene.rests_on(BLUE)
    left = stacked & scene.released & ~scene.touching["red", "floor"]
    clear = (scene.tcp[:, 2] - red[:, 2] > 0.04) | (scene.fingers.min(axis=1) > 0.03)
    success = left & clear

    value = 0.2 * reach
    value = np.where(scene.held, 0.2 + 0.1 * reach, value)
    value = np.where(lift > 0.05, 0.35 + 0.1 * lift, value)
    value = np.where(hover > 0.3, 0.5 + 0.2 * hover, value)
    value = np.where(stacked & scene.held, 0.75, value)
    value = np.where(left, 0.9, value)
    return np.where(success, 1.0, value), success


def reward(scene: Scene) -> tuple[Array, NDArray[np.bool_]]:
    """Reward of n states: the stage less one, so that the terminal success (stage 1 for ever) adds nothing.

    A step costs what is still missing. Ending early by success is then never a loss under any discount, and
    1 + return / horizon is the mean stage over the horizon.
    """
    value, success = stage(scene)
    return value - 1.0, success
