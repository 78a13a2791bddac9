"""The family of objects: convex prisms over a centrally symmetric polygon, after the objects of RGB-stacking.

A shape is an even-sided regular polygon that is stretched (aspect), extruded to a height, narrowed towards the top
(draft) and leaned sideways (shear). Central symmetry survives the stretch, so every face has a parallel partner that a
two-finger gripper can close on: the `grasps` of a shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_HALF_WIDTH = 0.032  # metres; the gripper opens to 0.040 a side


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

    def polygon(self) -> NDArray[np.float64]:
        """Corners of the mid-height polygon, (sides, 2), counter-clockwise; faces point along x and, for 4 sides, y."""
        angle = (2 * np.arange(self.sides) + 1) * np.pi / self.sides
        radius = self.half_width / np.cos(np.pi / self.sides)
        corners: NDArray[np.float64] = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        corners[:, 1] *= self.aspect
        return corners

    def vertices(self) -> NDArray[np.float64]:
        """Corners of the prism, (2 * sides, 3): the bottom polygon, then the top one."""
        middle = self.polygon()
        levels = []
        for z, scale in ((-self.half_height, 1 + self.draft), (self.half_height, 1 - self.draft)):
            level = np.column_stack([middle * scale, np.full(self.sides, z)])
            level[:, 0] += self.shear * z
            levels.append(level)
        return np.concatenate(levels)

    def grasps(self) -> NDArray[np.float64]:
        """Angles of the face normals that fit between the fingers, (n,), n >= 1; each stands for a parallel pair."""
        corners = self.polygon()
        edges = (np.roll(corners, -1, axis=0) - corners)[: self.sides // 2]  # the other half are their partners
        normals = np.stack([edges[:, 1], -edges[:, 0]], axis=1)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        half_widths = np.abs((corners[: self.sides // 2] * normals).sum(axis=1))
        fits = half_widths <= max(MAX_HALF_WIDTH, half_widths.min() + 1e-9)
        angles: NDArray[np.float64] = np.arctan2(normals[fits, 1], normals[fits, 0])
        return angles

    def describe(self) -> NDArray[np.float64]:
        """The six parameters as observed by a policy, scaled to about one."""
        return np.array(
            [
                self.sides / 8,
                self.half_width / 0.025,
                self.aspect - 1,
                self.draft * 10,
                self.shear * 5,
                self.half_height / 0.025,
            ]
        )


Triplet = tuple[Shape, Shape, Shape]
"""The red, the green and the blue object of an episode."""

# Five designated test triplets. Each asks for something else, as in the original benchmark.
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
