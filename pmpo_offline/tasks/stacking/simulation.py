"""Many stacking episodes at once: batched physics on `mujoco.rollout`, and what can be read off a state.

Every episode has its own model (its own three objects). All of them advance by one control step in one native call;
an episode's future depends on its own state and actions alone, never on what shares the batch with it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields

import mujoco
import numpy as np
from mujoco import rollout
from numpy.typing import NDArray

from pmpo_offline.tasks.stacking.scene import OBJECTS, TIMESTEP, TOUCHES, compile_scene
from pmpo_offline.tasks.stacking.shapes import Triplet

Array = NDArray[np.float64]

CONTROL_PERIOD = 0.05
"""Seconds between two actions (20 Hz)."""
ACTION_SCALE = np.array([0.3, 0.3, 0.3, 2.0, 0.15])
"""Full-scale command of (x, y, z, yaw, fingers): metres a second, radians a second."""
ACTION_DIM = 5
TCP_HEIGHT = 0.02
"""Height of the finger tips' centre above the z joint's zero."""
_SUBSTEPS = round(CONTROL_PERIOD / TIMESTEP)
_MIN_DISTANCE = 0.085
_QPOS, _QVEL, _ACT = slice(1, 28), slice(28, 52), slice(52, 58)


@dataclass(frozen=True)
class Layout:
    """How an episode begins: its objects and where they lie."""

    triplet: Triplet
    qpos: Array
    """Generalised position, (27,): x, y, z, yaw, two fingers, then (position, quaternion) of red, green and blue."""


def random_layout(rng: np.random.Generator, triplet: Triplet) -> Layout:
    """Place three objects on the floor of the basket, apart from each other, and the gripper above them."""
    while True:
        place = rng.uniform(-0.085, 0.085, (3, 2))
        if min(np.linalg.norm(place[i] - place[j]) for i, j in ((0, 1), (0, 2), (1, 2))) > _MIN_DISTANCE:
            break
    turn = rng.uniform(-np.pi, np.pi, 3) / 2  # half-angles
    qpos = np.concatenate([rng.uniform(-0.08, 0.08, 2), [0.2, rng.uniform(-0.5, 0.5), 0.04, 0.04]])
    for i, shape in enumerate(triplet):
        pose = [*place[i], shape.half_height + 0.001, np.cos(turn[i]), 0.0, 0.0, np.sin(turn[i])]
        qpos = np.concatenate([qpos, pose])
    return Layout(triplet, qpos)


@dataclass(frozen=True)
class Geometry:
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

    def take(self, index: NDArray[np.intp]) -> Geometry:
        """Return the rows `index`."""
        return Geometry(*(getattr(self, f.name)[index] for f in fields(self)))


class Scene:
    """What can be read off n simulation states: poses in the world, contacts, and relations between objects."""

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
        """Vector from the centre of red's bottom face to the centre of `target`'s top face, (n, 3)."""
        gap: Array = self.top[:, target] - self.bottom[:, 0]
        return gap

    def rests_on(self, target: int) -> NDArray[np.bool_]:
        """Whether red touches `target` and lies on its top face within 60 % of that face's half-width, (n,)."""
        gap = self.offset(target)
        near: NDArray[np.bool_] = np.linalg.norm(gap[:, :2], axis=1) < 0.6 * self.geometry.top_reach[:, target]
        return near & (np.abs(gap[:, 2]) < 0.006) & self.touching["red", OBJECTS[target]]

    @property
    def held(self) -> NDArray[np.bool_]:
        """Whether both pads touch red, (n,)."""
        return self.touching["red", "left_pad"] & self.touching["red", "right_pad"]

    @property
    def released(self) -> NDArray[np.bool_]:
        """Whether neither pad touches red, (n,)."""
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


def _log(message: str) -> None:
    logging.getLogger(__name__).warning("MuJoCo: %s", message)


class Simulation:
    """Batched episodes. `step` advances those named by `index`; the others stay as they are.

    Args:
        layouts: how each of the n episodes begins.
        threads: native threads that share the batch; results do not depend on it.
    """

    def __init__(self, layouts: Sequence[Layout], threads: int = 1) -> None:
        mujoco.set_mju_user_warning(_log)  # or MuJoCo writes a file into the working directory
        self._models = [compile_scene(layout.triplet) for layout in layouts]
        # One scratch structure a thread serves all models, so it needs room for each: their sizes may differ only in
        # the meshes' bounding-volume trees, and the largest tree is taken. Anything else would corrupt memory.
        sizes = {(m.nq, m.nv, m.nM, m.nB, m.nC, m.nD, m.ngeom, m.nsensordata, m.narena) for m in self._models}
        if len(sizes) != 1:
            raise ValueError(f"scenes of different sizes cannot share a batch: {sorted(sizes)}")
        roomiest = max(self._models, key=lambda model: model.nbvh)
        self._scratch = [mujoco.MjData(roomiest) for _ in range(threads)]
        self._pool = rollout.Rollout(nthread=threads if threads > 1 else 0)
        self.geometry = Geometry.of([layout.triplet for layout in layouts])
        self.state = np.zeros((len(layouts), 58))
        self.sensors = np.zeros((len(layouts), 2 + len(TOUCHES)))
        qpos = np.stack([layout.qpos for layout in layouts])
        self.state[:, _QPOS] = qpos
        self.state[:, _ACT] = qpos[:, :6]
        self.step(np.zeros((len(layouts), ACTION_DIM)))  # let the objects settle
        self.state[:, 0] = 0.0

    def __len__(self) -> int:
        return len(self._models)

    def step(self, action: Array, index: NDArray[np.intp] | None = None) -> None:
        """Apply `action`, (m, 5) clipped to [-1, 1], for one control period to the episodes `index` (default: all)."""
        index = np.arange(len(self)) if index is None else index
        command = np.clip(action, -1, 1) * ACTION_SCALE
        control = np.concatenate([command, command[:, 4:]], axis=1)  # both fingers follow one command
        control = np.repeat(control[:, None], _SUBSTEPS, axis=1)
        models = [self._models[i] for i in index]
        state, sensors = self._pool.rollout(models, self._scratch, self.state[index], control)
        self.state[index] = state[:, -1]
        self.sensors[index] = sensors[:, -1]

    def scene(self, index: NDArray[np.intp] | None = None) -> Scene:
        """Read the states of the episodes `index` (default: all)."""
        index = np.arange(len(self)) if index is None else index
        return Scene(self.state[index], self.sensors[index], self.geometry.take(index))
