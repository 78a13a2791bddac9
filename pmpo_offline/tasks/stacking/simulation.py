"""Many stacking episodes at once: batched physics, relations that a state shows, the observation and the reward.

Every episode has its own model (its own three objects). All of them advance by one control step in one native call.

Observed are relations, not world poses: an offset that the next motion has to cancel is worth ten times more updates
than two positions from which a network must learn to subtract.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from pmpo_offline.tasks.simulated import Bools, Index, Physics, Step
from pmpo_offline.tasks.stacking.scene import (
    BLUE,
    GREEN,
    OBJECTS,
    RED,
    TIMESTEP,
    TOUCHES,
    Array,
    Layout,
    Triplet,
    compile_scene,
)

CONTROL_PERIOD = 0.05
"""Seconds between two actions (20 Hz)."""
HORIZON = 200
"""Control steps after which an episode is truncated."""
HOLD_STEPS = 5
"""Control steps for which success must last before the episode ends."""
ACTION_SCALE = np.array([0.3, 0.3, 0.3, 2.0, 0.15])
"""Full-scale command of (x, y, z, yaw, fingers): metres a second, radians a second."""
ACTION_DIM = 5
OBSERVATION_DIM = 80
TCP_HEIGHT = 0.02
"""Height of the finger tips' centre above the z joint's zero."""
_FORCE_LIMIT = 20.0  # newtons
_SUBSTEPS = round(CONTROL_PERIOD / TIMESTEP)
_QPOS, _QVEL, _ACT = slice(1, 28), slice(28, 52), slice(52, 58)


@dataclass(frozen=True)
class Rows:
    """Arrays with one row an episode."""

    def take(self, index: Index) -> Self:
        """Return the rows `index`."""
        return type(self)(*(getattr(self, field.name)[index] for field in fields(self)))


@dataclass(frozen=True)
class Geometry(Rows):
    """Constants of each episode's objects; leading axes (episodes, objects)."""

    parameters: Array  # (n, 3, 6)
    half_height: Array  # (n, 3)
    top: Array  # (n, 3, 3) centre of the top face in the object's frame; the bottom's is its negative
    top_reach: Array  # (n, 3) half-width of the top face
    grasps: Array  # (n, 3, 4) angles of graspable face pairs, padded by repetition

    @classmethod
    def of(cls, triplets: Sequence[Triplet]) -> Geometry:
        """Tabulate the shapes of `triplets`."""
        shapes = [shape for triplet in triplets for shape in triplet]

        def table(values: list[object]) -> Array:
            array = np.array(values, dtype=np.float64)
            return array.reshape(len(triplets), 3, *array.shape[1:])

        return cls(
            parameters=table([s.describe() for s in shapes]),
            half_height=table([s.half_height for s in shapes]),
            top=table([[s.shear * s.half_height, 0.0, s.half_height] for s in shapes]),
            top_reach=table([s.half_width * (1 - s.draft) for s in shapes]),
            grasps=table([np.resize(s.grasps(), 4) for s in shapes]),
        )


class Scene:
    """Readings of n simulation states: poses in the world, contacts, and relations between objects."""

    def __init__(self, state: Array, sensors: Array, geometry: Geometry) -> None:
        qpos, qvel = state[:, _QPOS], state[:, _QVEL]
        self.geometry = geometry
        self.tcp = qpos[:, :3] + [0.0, 0.0, TCP_HEIGHT]
        self.yaw = qpos[:, 3]
        self.fingers = qpos[:, 4:6]
        self.hand_velocity = qvel[:, :6]
        self.setpoint = state[:, _ACT]
        """Position set points of the six actuators, (n, 6); z is relative to the joint, not to the tips."""
        self.joints = qpos[:, :6]
        self.force = sensors[:, :2]
        """Touch force on the left and the right pad, newtons, (n, 2)."""
        self.touching = {pair: sensors[:, 2 + i] > 0 for i, pair in enumerate(TOUCHES)}
        pose = qpos[:, 6:].reshape(-1, 3, 7)
        self.position = pose[..., :3]
        self.rotation = _rotation(pose[..., 3:])
        self.object_velocity = qvel[:, 6:].reshape(-1, 3, 6)[..., :3]
        lever = np.einsum("noij,noj->noi", self.rotation, geometry.top)
        self.top = self.position + lever
        self.bottom = self.position - lever
        facing = np.arctan2(self.rotation[..., 1, 0], self.rotation[..., 0, 0])
        # The fingers close along the hand's y axis: aligned where a face normal points a quarter turn from the yaw.
        # Half a turn makes no difference to a grasp: aim within a quarter turn of zero, in reach of the joint.
        aim = (facing[..., None] + geometry.grasps) % np.pi - np.pi / 2
        error = aim - self.yaw[:, None, None]
        best = np.argmin(np.abs(error), axis=2, keepdims=True)
        self.grasp_error = np.take_along_axis(error, best, axis=2)[..., 0]
        """Signed turn of the hand to each object's nearest graspable faces, radians, (n, 3)."""

    def offset(self, target: int) -> Array:
        """Return the vector from the centre of red's bottom face to the centre of `target`'s top face, (n, 3)."""
        gap: Array = self.top[:, target] - self.bottom[:, 0]
        return gap

    def rests_on(self, target: int) -> Bools:
        """Return whether red touches `target` and lies on its top face within 60 % of that face's half-width, (n,)."""
        gap = self.offset(target)
        near: Bools = np.linalg.norm(gap[:, :2], axis=1) < 0.6 * self.geometry.top_reach[:, target]
        return near & (np.abs(gap[:, 2]) < 0.006) & self.touching["red", OBJECTS[target]]

    @property
    def held(self) -> Bools:
        """(n,): both pads touch red."""
        return self.touching["red", "left_pad"] & self.touching["red", "right_pad"]

    @property
    def released(self) -> Bools:
        """(n,): neither pad touches red."""
        return ~self.touching["red", "left_pad"] & ~self.touching["red", "right_pad"]


def _rotation(q: Array) -> Array:
    """Rotation matrices of unit quaternions (w, x, y, z): (..., 4) -> (..., 3, 3)."""
    w, x, y, z = np.moveaxis(q, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def observe(scene: Scene) -> Array:
    """Return the observations of n states, float32 (n, 80).

    | columns | meaning |
    |---|---|
    | 0-6 | finger tips (3), sine and cosine of the yaw, finger openings (2) |
    | 7-20 | velocities of the six joints (6), pad forces / 20 N (2), set points less joints (6) |
    | 21-32 | red: offset from the tips (3), up axis (3), turn to its grasp as sin 2t, cos 2t, t, velocity (3) |
    | 33-44, 45-56 | green and blue, likewise |
    | 57-62 | offset from red's bottom face to blue's top face (3), to green's (3) |
    | 63-67 | contacts: red with left pad, right pad, blue, green, floor |
    | 68-79 | shape of red (6) and of blue (6) |
    """
    n = len(scene.tcp)
    turn = scene.grasp_error[..., None]
    objects = [
        scene.position - scene.tcp[:, None],
        scene.rotation[..., 2],
        np.sin(2 * turn),
        np.cos(2 * turn),
        turn,
        scene.object_velocity,
    ]
    parts = [
        scene.tcp,
        np.sin(scene.yaw)[:, None],
        np.cos(scene.yaw)[:, None],
        scene.fingers,
        scene.hand_velocity,
        np.minimum(scene.force, _FORCE_LIMIT) / _FORCE_LIMIT,
        scene.setpoint - scene.joints,
        np.concatenate(objects, axis=-1).reshape(n, -1),
        scene.offset(BLUE),
        scene.offset(GREEN),
        np.stack(list(scene.touching.values()), axis=1),
        scene.geometry.parameters[:, [0, 2]].reshape(n, -1),
    ]
    return np.concatenate(parts, axis=1).astype(np.float32)


def stage(scene: Scene) -> tuple[Array, Bools]:
    """Rate n states by how far the task has come.

    Returns:
        The stage, (n,), in [0, 1]: reach < .2, grasp < .3, lift < .45, hover < .7, stacked but held .75, released .9,
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


class StackingSimulation:
    """Batched episodes. `step` advances those named by `index`; the others do not change.

    Args:
        layouts: the beginning of each of the n episodes.
        threads: native threads that share the batch; results do not depend on it.
    """

    horizon, action_dim, success_ends = HORIZON, ACTION_DIM, True

    def __init__(self, layouts: Sequence[Layout], threads: int = 1) -> None:
        self._models = [compile_scene(layout.triplet) for layout in layouts]
        # One scratch structure a thread serves all models, so it needs room for each: their sizes may differ only in
        # the meshes' bounding-volume trees, and the largest tree is taken. Anything else would corrupt memory.
        sizes = {(m.nq, m.nv, m.nM, m.nB, m.nC, m.nD, m.ngeom, m.nsensordata, m.narena) for m in self._models}
        if len(sizes) != 1:
            raise ValueError(f"scenes of different sizes cannot share a batch: {sorted(sizes)}")
        self._physics = Physics(max(self._models, key=lambda model: model.nbvh), threads)
        n = len(layouts)
        self.geometry = Geometry.of([layout.triplet for layout in layouts])
        self.state = np.zeros((n, 58))
        """Time, positions, velocities and set points, (n, 58)."""
        self.sensors = np.zeros((n, 2 + len(TOUCHES)))
        qpos = np.stack([layout.qpos for layout in layouts])
        self.state[:, _QPOS] = qpos
        self.state[:, _ACT] = qpos[:, :6]
        self._advance(np.zeros((n, ACTION_DIM)), np.arange(n))  # let the objects settle
        self.state[:, 0] = 0.0
        self.observation = observe(self.scene())
        """(n, 80)."""
        self._elapsed, self._streak = np.zeros(n, np.int64), np.zeros(n, np.int64)

    def __len__(self) -> int:
        return len(self._models)

    def step(self, action: Array, index: Index | None = None) -> Step:
        """Apply `action`, (m, 5) clipped to [-1, 1], for one control period to the episodes `index` (default: all).

        The reward is the stage less one, so that the terminal success (stage 1 for ever) adds nothing: a step costs
        what is still missing. Ending early by success is then never a loss under any discount, and 1 + return / horizon
        is the mean stage over the horizon.
        """
        index = np.arange(len(self)) if index is None else index
        self._advance(action, index)
        scene = self.scene(index)
        value, success = stage(scene)
        self._elapsed[index] += 1
        self._streak[index] = np.where(success, self._streak[index] + 1, 0)
        self.observation[index] = observation = observe(scene)
        return Step(observation, value - 1.0, self._streak[index] >= HOLD_STEPS, self._elapsed[index] >= HORIZON)

    def scene(self, index: Index | None = None) -> Scene:
        """Read the states of the episodes `index` (default: all)."""
        index = np.arange(len(self)) if index is None else index
        return Scene(self.state[index], self.sensors[index], self.geometry.take(index))

    def _advance(self, action: Array, index: Index) -> None:
        command = np.clip(action, -1, 1) * ACTION_SCALE
        control = np.concatenate([command, command[:, 4:]], axis=1)  # both fingers follow one command
        models = [self._models[i] for i in index]
        self.state[index], self.sensors[index] = self._physics.advance(models, self.state[index], control, _SUBSTEPS)
