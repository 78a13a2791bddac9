"""Positions and velocities of the bodies of a planar mechanism, computed for many states at once.

MuJoCo's own sensors cannot serve: after a rollout they are of the state *before* the last physics step. In the plane
every point of a tree of hinges is a sum of rotated constants, so that a few matrix products replace them:

    p(q) = s(q) + Σ_k R(θ_k) c_k        θ = turn · (q - q0)
    ẋ    = ṡ_x  + Σ_k θ'_k (c_kz cos θ_k - c_kx sin θ_k)

with s the root's slides, θ_k the angle of body k about +y and R(θ) (x, z) = (x cos θ + z sin θ, z cos θ - x sin θ).
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from pmpo_offline.tasks.simulated import Array
from pmpo_offline.tasks.trajectories import Figure, Picture

_XZ = [0, 2]


@dataclass(frozen=True)
class Tree:
    """The constants of a planar mechanism with B bodies (the world included) and nv joints of one degree each."""

    model: mujoco.MjModel
    turn: Array
    """(B, nv): 1 or -1 where a joint turns a body about +y or -y, else 0."""
    slide: Array
    """(2, nv): the direction (x, z) of the root's slides."""
    origin: Array
    """(B, B, 2): the constants c of each body's origin."""

    @classmethod
    def of(cls, model: mujoco.MjModel) -> Tree:
        """Read the constants off `model`; `ValueError` if it is not a planar tree of hinges on a sliding root."""
        bodies = model.nbody
        turn, slide = np.zeros((bodies, model.nv)), np.zeros((2, model.nv))
        origin = np.zeros((bodies, bodies, 2))
        if not np.array_equal(model.body_quat, np.tile([1.0, 0, 0, 0], (bodies, 1))):
            raise ValueError("a body is turned within its parent: the mechanism is not a plain planar tree")
        for body in range(1, bodies):
            parent = model.body_parentid[body]
            turn[body], origin[body] = turn[parent], origin[parent]
            anchor = np.zeros(2)
            first = model.body_jntadr[body]
            for joint in range(first, first + model.body_jntnum[body]):
                axis, dof = model.jnt_axis[joint], model.jnt_dofadr[joint]
                if model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_SLIDE and parent == 0 and not turn[body].any():
                    slide[:, dof] = axis[_XZ]
                elif model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_HINGE and abs(axis[1]) == 1 and not anchor.any():
                    turn[body, dof], anchor = axis[1], model.jnt_pos[joint][_XZ]
                else:
                    raise ValueError(f"joint {model.joint(joint).name} does not belong in a planar tree")
            # A hinge keeps its anchor where the parent holds it; the body turns about it.
            origin[body, parent] += model.body_pos[body][_XZ] + anchor
            origin[body, body] -= anchor
        return cls(model, turn, slide, origin)

    def angles(self, qpos: Array) -> Array:
        """Return the bodies' angles about +y, (m, nq) -> (m, B - 1), radians; the world's is left out."""
        return np.asarray((qpos - self.model.qpos0) @ self.turn[1:].T)

    def body(self, name: str) -> Point:
        """Return the origin of a body."""
        return Point(self, self.origin[self.model.body(name).id])

    def center(self, name: str) -> Point:
        """Return the centre of mass of a body."""
        return Point(self, self._center(self.model.body(name).id))

    def center_of_all(self) -> Point:
        """Return the common centre of mass of all bodies that hang on the root."""
        mass = self.model.body_mass[1:]
        centers = np.stack([self._center(body) for body in range(1, self.model.nbody)])
        return Point(self, np.tensordot(mass / mass.sum(), centers, 1))

    def draw(self, qpos: Array) -> list[Picture]:
        """Return pictures of the mechanism above the ground, (m, nq): its capsules as strokes."""
        ground = Figure("floor", np.array([[-1.2, 0.0], [1.2, 0.0]]), 0.01)
        capsules = np.flatnonzero(self.model.geom_type == mujoco.mjtGeom.mjGEOM_CAPSULE).tolist()
        strokes = [(self._ends(geom, qpos), 2 * float(self.model.geom_size[geom, 0])) for geom in capsules]
        return [[ground, *(Figure("body", ends[t], width) for ends, width in strokes)] for t in range(len(qpos))]

    def _ends(self, geom: int, qpos: Array) -> Array:
        """Return both ends of a capsule's axis, (m, 2, 2)."""
        axis, body = np.zeros(9), self.model.geom_bodyid[geom]
        mujoco.mju_quat2Mat(axis, self.model.geom_quat[geom])
        ends = []
        for side in (-1, 1):
            constants = self.origin[body].copy()
            constants[body] += (self.model.geom_pos[geom] + side * self.model.geom_size[geom, 1] * axis[2::3])[_XZ]
            ends.append(Point(self, constants).place(qpos))
        return np.stack(ends, axis=1)

    def _center(self, body: int) -> Array:
        constants: Array = self.origin[body].copy()
        constants[body] += self.model.body_ipos[body][_XZ]
        return constants


@dataclass(frozen=True)
class Point:
    """A point of a tree: the sum of rotated constants."""

    tree: Tree
    constants: Array
    """(B, 2): c, as (x, z); the world's are not rotated."""

    def place(self, qpos: Array) -> Array:
        """Return x and z in metres, (m, nq) -> (m, 2)."""
        tree, (x, z) = self.tree, self.constants[1:].T
        angle = tree.angles(qpos)
        turned = [np.cos(angle) @ x + np.sin(angle) @ z, np.cos(angle) @ z - np.sin(angle) @ x]
        return np.asarray(self.constants[0] + (qpos - tree.model.qpos0) @ tree.slide.T + np.stack(turned, axis=1))

    def height(self, qpos: Array) -> Array:
        """Return z in metres, (m, nq) -> (m,)."""
        tree, (x, z) = self.tree, self.constants[1:].T
        angle = tree.angles(qpos)
        slid = (qpos - tree.model.qpos0) @ tree.slide[1]
        return np.asarray(self.constants[0, 1] + slid + np.cos(angle) @ z - np.sin(angle) @ x)

    def speed(self, qpos: Array, qvel: Array) -> Array:
        """Return the velocity along x in metres a second, (m, nq), (m, nv) -> (m,)."""
        tree, (x, z) = self.tree, self.constants[1:].T
        angle = tree.angles(qpos)
        lever = np.cos(angle) * z - np.sin(angle) * x
        return np.asarray(qvel @ tree.slide[0] + ((qvel @ tree.turn[1:].T) * lever).sum(axis=1))
