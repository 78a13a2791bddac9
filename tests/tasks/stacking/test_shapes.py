"""The family of objects: convex, graspable, and every test object inside the ranges of the training ones."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from pmpo_offline.tasks.stacking.scene import MAX_HALF_WIDTH, TRIPLETS, Shape, random_triplet

DRAWN = [shape for seed in range(300) for shape in random_triplet(np.random.default_rng(seed))]
NAMED = [shape for triplet in TRIPLETS.values() for shape in triplet]


def turns(shape: Shape) -> list[float]:
    """Grasp angles in degrees, modulo the half turn that makes no difference."""
    return sorted(float(x) % 180 for x in np.round(np.degrees(shape.grasps()) % 180, 9))


def test_corners_of_a_box_by_hand() -> None:
    corners = Shape(4, 0.02, aspect=1.5, half_height=0.025).vertices()
    expected = {(x, y, z) for x in (-0.02, 0.02) for y in (-0.03, 0.03) for z in (-0.025, 0.025)}
    assert {tuple(corner) for corner in corners.round(12)} == expected


def test_corners_of_a_drafted_and_sheared_box_by_hand() -> None:
    corners = Shape(4, 0.02, draft=0.1, shear=0.2, half_height=0.025).vertices()
    bottom, top = corners[:4], corners[4:]
    # The lean displaces a level by shear * height: 5 mm at either end.
    np.testing.assert_allclose(bottom.mean(0), [-0.005, 0, -0.025], atol=1e-12)
    np.testing.assert_allclose(top.mean(0), [0.005, 0, 0.025], atol=1e-12)
    np.testing.assert_allclose(np.ptp(bottom, axis=0), [0.044, 0.044, 0], atol=1e-12)
    np.testing.assert_allclose(np.ptp(top, axis=0), [0.036, 0.036, 0], atol=1e-12)


def test_every_corner_is_a_corner_of_the_convex_hull() -> None:
    for shape in NAMED + DRAWN:
        corners = shape.vertices()
        hull = ConvexHull(corners)
        assert len(hull.vertices) == len(corners) == 2 * shape.sides
        area = ConvexHull(shape.polygon()).volume
        # Prismatoid: h/6 (bottom + 4 middle + top); shearing keeps the volume.
        sections = (1 + shape.draft) ** 2 + 4 + (1 - shape.draft) ** 2
        assert hull.volume == pytest.approx(2 * shape.half_height / 6 * sections * area)


@pytest.mark.parametrize(
    ("shape", "degrees"),
    [
        (Shape(4, 0.022), [0, 90]),
        (Shape(4, 0.022, aspect=1.4), [0, 90]),  # 30.8 mm: both pairs still fit
        (Shape(4, 0.022, aspect=1.5), [0]),  # 33 mm along y: only the faces along x
        (Shape(6, 0.021), [0, 60, 120]),
        (Shape(8, 0.021), [0, 45, 90, 135]),
        (Shape(4, 0.05, aspect=1.2), [0]),  # too wide for any: the narrowest pair is named all the same
    ],
    ids=repr,
)
def test_grasps_by_hand(shape: Shape, degrees: list[float]) -> None:
    assert turns(shape) == degrees


def test_fingers_can_close_on_every_grasp() -> None:
    for shape in NAMED + DRAWN:
        for angle in shape.grasps():
            along = shape.polygon() @ [np.cos(angle), np.sin(angle)]
            assert along.max() == pytest.approx(-along.min()), "the partner face is parallel"
            assert (np.abs(along - along.max()) < 1e-9).sum() == 2, "a face, not an edge"
            assert along.max() <= MAX_HALF_WIDTH


def test_test_triplets_lie_inside_the_training_ranges() -> None:
    assert len(TRIPLETS) == 5
    for name in ("half_width", "aspect", "draft", "shear", "half_height"):
        drawn = [getattr(shape, name) for shape in DRAWN]
        for shape in NAMED:
            assert min(drawn) <= getattr(shape, name) <= max(drawn), (name, shape)
    assert {shape.sides for shape in NAMED} <= {shape.sides for shape in DRAWN} == {4, 6, 8}
    # Only boxes are stretched: a combination that no policy was trained on would be another benchmark.
    assert all(shape.aspect == 1 for shape in NAMED + DRAWN if shape.sides != 4)


def test_description_tells_shapes_apart() -> None:
    described = {tuple(shape.describe()) for shape in NAMED}
    assert len(described) == len(set(NAMED))
    np.testing.assert_allclose(Shape(4, 0.025, 1.5, 0.1, 0.2, 0.025).describe(), [0.5, 1, 0.5, 1, 1, 1])


def test_a_shape_is_known_from_its_description():
    for triplet in TRIPLETS.values():
        for shape in triplet:
            assert Shape.described(shape.describe()).vertices() == pytest.approx(shape.vertices())
