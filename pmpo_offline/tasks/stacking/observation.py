"""What a policy sees: proprioception, then everything relative to the gripper.

Relations, not world poses: an offset that the next motion has to cancel is worth ten times more updates than two
positions from which a network must learn to subtract.
"""

from __future__ import annotations

import numpy as np

from pmpo_offline.tasks.stacking.rewards import BLUE, GREEN
from pmpo_offline.tasks.stacking.simulation import Array, Scene

_FORCE_LIMIT = 20.0  # newtons


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


OBSERVATION_DIM = 80
