"""Pictures of the scene from what is observed of it: the gripper and three objects, seen as by the camera "front".

An object is drawn with a face turned as the nearest one that can be grasped, which is what is observed of its turn;
green's shape is not observed, and drawn as a plain box.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from pmpo_offline.tasks.stacking.scene import OBJECTS, Array, Shape
from pmpo_offline.tasks.trajectories import Figure, Picture

CAMERA = np.array([[1.0, 0.0, 0.0], [0.0, 0.52, 0.85]])
"""Right and up, (2, 3)."""
_AWAY = np.array([0.0, 0.85, -0.52])
_BASKET = 0.15
_FINGER, _PALM = 0.065, 0.075
"""Heights of the fingers' ends and the palm above the tips, metres."""
_TOP = 0.32
"""Height to which the arm is seen, metres."""


def draw(observation: NDArray[np.float32]) -> list[Picture]:
    """Return the pictures of observed states, (T, 80)."""
    return [_picture(state) for state in observation.astype(np.float64)]


def _picture(state: Array) -> Picture:
    tips, yaw = state[:3], np.arctan2(state[3], state[4])
    shapes = {"red": Shape.described(state[68:74]), "blue": Shape.described(state[74:80]), "green": Shape()}
    seen: list[tuple[float, list[Figure]]] = []
    for name, about in zip(OBJECTS, state[21:57].reshape(3, 12), strict=True):
        place = tips + about[:3]
        corners = place + shapes[name].vertices() @ _rotation(about[3:6], yaw + about[8], shapes[name]).T
        seen.append((float(_AWAY @ place), _solid(name, corners)))
    side = np.array([-np.sin(yaw), np.cos(yaw), 0.0])  # along which the fingers open
    up = np.array([0.0, 0.0, 1.0])
    for sign, opening in zip((1, -1), state[5:7], strict=True):
        pad = tips + sign * (0.005 + opening) * side
        seen.append((float(_AWAY @ pad), [_stroke(pad - 0.011 * up, pad + _FINGER * up, 0.01)]))
    floor = _BASKET * np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    palm = tips + _PALM * up
    end = np.array([*palm[:2], max(_TOP, palm[2])])
    above = [_stroke(palm, end, 0.024), _stroke(palm - 0.05 * side, palm + 0.05 * side, 0.022)]
    ordered = sorted(seen, key=lambda part: -part[0])
    return [Figure("floor", floor @ CAMERA.T), *(figure for _, part in ordered for figure in part), *above]


def _rotation(up: Array, facing: float, shape: Shape) -> Array:
    """Return the matrix, (3, 3), of an object with this up axis and this turn of the nearest faces to grasp."""
    turn = facing + np.pi / 2 - shape.grasps()[0]
    ahead = np.array([np.cos(turn), np.sin(turn), 0.0])
    ahead -= ahead @ up * up
    ahead /= max(float(np.linalg.norm(ahead)), 1e-9)
    return np.stack([ahead, np.cross(up, ahead), up], axis=1)


def _solid(name: str, corners: Array) -> list[Figure]:
    """Return the outline of a prism, and the end that is seen from above."""
    points, half = corners @ CAMERA.T, len(corners) // 2
    ends = (slice(half), slice(half, None))
    nearest = min(ends, key=lambda end: float((corners[end] @ _AWAY).mean()))
    return [Figure(name, points[ConvexHull(points).vertices]), Figure(f"{name}-top", points[nearest])]


def _stroke(start: Array, end: Array, width: float) -> Figure:
    return Figure("hand", np.stack([start, end]) @ CAMERA.T, width)
