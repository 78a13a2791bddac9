"""A scene: three objects, how they lie in a basket under a Cartesian gripper, and the MuJoCo model of it all.

An object is an even-sided regular polygon that is stretched (aspect), extruded to a height, narrowed towards the top
(draft) and leaned sideways (shear), after the objects of RGB-stacking. Central symmetry survives the stretch, so every
face has a parallel partner that a two-finger gripper can close on: the `grasps` of a shape. The gripper (x, y, z, yaw,
two fingers) and the basket are in scene.xml.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RED, GREEN, BLUE = 0, 1, 2
OBJECTS = ("red", "green", "blue")
COLOURS = ("0.85 0.18 0.15 1", "0.20 0.62 0.25 1", "0.18 0.32 0.85 1")
TOUCHES = (("red", "left_pad"), ("red", "right_pad"), ("red", "blue"), ("red", "green"), ("red", "floor"))
"""Pairs whose contact the simulator reports: what the reward and the policy can know of contacts."""
TIMESTEP = 0.005
"""Seconds; implicitfast is needed at this step (explicit Euler loses the grasp)."""
MAX_HALF_WIDTH = 0.032  # metres; the gripper opens to 0.040 a side
_MIN_DISTANCE = 0.085  # metres, between the centres of objects


@dataclass(frozen=True)
class Shape:
    """One convex object. Lengths in metres; the origin lies at mid-height on the axis."""

    sides: int = 4
    """Number of side faces, even."""
    half_width: float = 0.022
    """Half the distance between the two narrowest parallel faces at mid-height."""
    aspect: float = 1.0
    """Stretch along the local y axis, at least 1."""
    draft: float = 0.0
    """Relative narrowing: the top polygon is (1 - draft) and the bottom (1 + draft) of the middle one."""
    shear: float = 0.0
    """Sideways lean along the local x axis: displacement divided by height."""
    half_height: float = 0.022

    def polygon(self) -> Array:
        """Corners of the mid-height polygon, (sides, 2), counter-clockwise; faces point along x and, for 4 sides, y."""
        angle = (2 * np.arange(self.sides) + 1) * np.pi / self.sides
        radius = self.half_width / np.cos(np.pi / self.sides)
        corners: Array = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        corners[:, 1] *= self.aspect
        return corners

    def vertices(self) -> Array:
        """Corners of the prism, (2 * sides, 3): the bottom polygon, then the top one."""
        middle = self.polygon()
        levels = []
        for z, scale in ((-self.half_height, 1 + self.draft), (self.half_height, 1 - self.draft)):
            level = np.column_stack([middle * scale, np.full(self.sides, z)])
            level[:, 0] += self.shear * z
            levels.append(level)
        return np.concatenate(levels)

    def grasps(self) -> Array:
        """Angles of the face normals that fit between the fingers, (n,), n >= 1; each is that of a parallel pair."""
        corners = self.polygon()
        edges = (np.roll(corners, -1, axis=0) - corners)[: self.sides // 2]  # the other half are their partners
        normals = np.stack([edges[:, 1], -edges[:, 0]], axis=1)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        half_widths = np.abs((corners[: self.sides // 2] * normals).sum(axis=1))
        fits = half_widths <= max(MAX_HALF_WIDTH, half_widths.min() + 1e-9)
        angles: Array = np.arctan2(normals[fits, 1], normals[fits, 0])
        return angles

    def describe(self) -> Array:
        """The six parameters as observed by a policy, scaled to about one."""
        widths = [self.sides / 8, self.half_width / 0.025, self.aspect - 1]
        return np.array([*widths, self.draft * 10, self.shear * 5, self.half_height / 0.025])

    @classmethod
    def described(cls, observed: Array) -> Shape:
        """Return the shape of these six parameters, (6,): the inverse of `describe`."""
        sides, half_width, aspect, draft, shear, half_height = map(float, observed)
        return cls(round(8 * sides), 0.025 * half_width, 1 + aspect, draft / 10, shear / 5, 0.025 * half_height)


Triplet = tuple[Shape, Shape, Shape]
"""The red, the green and the blue object of an episode."""

# Five designated test triplets. Each is difficult in another way, as in the original benchmark.
TRIPLETS: dict[str, Triplet] = {
    # a tapered red: only the right pair of faces holds
    "1-tapered": (Shape(4, 0.021, 1.15, draft=0.10), Shape(6, 0.024), Shape(4, 0.025, 1.1)),
    # a long blue: the red must come to rest on a narrow top
    "2-narrow-base": (Shape(6, 0.021), Shape(4, 0.022, 1.3), Shape(4, 0.020, 1.45, half_height=0.020)),
    # a leaning blue: its top is not above its foot
    "3-leaning-base": (Shape(4, 0.022), Shape(8, 0.023), Shape(4, 0.025, shear=0.25, half_height=0.020)),
    # a leaning red: the grasp turns it if it is not centred
    "4-leaning-top": (Shape(4, 0.022, 1.1, shear=0.2), Shape(4, 0.024), Shape(6, 0.026)),
    # plain boxes
    "5-boxes": (Shape(), Shape(half_width=0.024), Shape(half_width=0.025)),
}


def random_triplet(rng: np.random.Generator) -> Triplet:
    """Draw a training triplet; every parameter of the test triplets lies inside the drawn ranges."""

    def draw() -> Shape:
        sides = int(rng.choice([4, 4, 6, 8]))
        return Shape(
            sides=sides,
            half_width=rng.uniform(0.019, 0.0265),
            aspect=rng.uniform(1.0, 1.5) if sides == 4 else 1.0,
            draft=rng.uniform(0.0, 0.12) * rng.integers(2),
            shear=rng.uniform(-0.3, 0.3) * rng.integers(2),
            half_height=rng.uniform(0.019, 0.025),
        )

    return draw(), draw(), draw()


@dataclass(frozen=True)
class Layout:
    """The beginning of an episode: its objects and where they lie."""

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


def scene_xml(triplet: Triplet) -> str:
    """Write the MJCF of a scene with the three objects of `triplet`."""

    def mesh(name: str, shape: Shape) -> str:
        vertices = " ".join(f"{coordinate:.6f}" for coordinate in shape.vertices().flat)
        return f'<mesh name="{name}" vertex="{vertices}"/>'

    # Ten micrometres off centre keep the compiler from storing symmetric bodies in a smaller form: all scenes then have
    # mass matrices of one size, and one scratch structure serves them all (see `Simulation`).
    def body(name: str, colour: str) -> str:
        return (
            f'<body name="{name}"><freejoint name="{name}"/>'
            f'<geom name="{name}" class="object" mesh="{name}" pos="1e-5 1e-5 1e-5" rgba="{colour}"/></body>'
        )

    return (
        (Path(__file__).parent / "scene.xml")
        .read_text(encoding="utf-8")
        .format(
            timestep=TIMESTEP,
            meshes="".join(map(mesh, OBJECTS, triplet)),
            bodies="".join(map(body, OBJECTS, COLOURS)),
            contacts="".join(
                f'<contact name="{a}_{b}" geom1="{a}" geom2="{b}" data="found" num="1"/>' for a, b in TOUCHES
            ),
        )
    )


@lru_cache(maxsize=1024)
def compile_scene(triplet: Triplet) -> mujoco.MjModel:
    """Compile a scene; equal triplets share one model: do not modify it."""
    return mujoco.MjModel.from_xml_string(scene_xml(triplet))
