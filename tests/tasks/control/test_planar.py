"""Planar kinematics beside MuJoCo's own, on random states."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from pmpo_offline.tasks import control
from pmpo_offline.tasks.control.planar import Tree


@pytest.mark.parametrize("name", ["cheetah-run", "walker-walk", "hopper-hop"])
def test_points_and_speeds_are_mujocos(name: str) -> None:
    model = control.rules(f"dm_control/{name}").model
    tree, data, rng = Tree.of(model), mujoco.MjData(model), np.random.default_rng(0)
    qpos, qvel = rng.uniform(-3, 3, (50, model.nq)), rng.uniform(-9, 9, (50, model.nv))
    bodies = [model.body(i).name for i in range(1, model.nbody)]
    heights = {body: (tree.body(body).height(qpos), tree.center(body).height(qpos)) for body in bodies}
    speed, angles = tree.center_of_all().speed(qpos, qvel), tree.angles(qpos)
    for i in range(50):
        data.qpos[:], data.qvel[:] = qpos[i], qvel[i]
        mujoco.mj_forward(model, data)
        for k, body in enumerate(bodies):
            origin, center = heights[body]
            assert origin[i] == pytest.approx(data.body(body).xpos[2], abs=1e-12)
            assert center[i] == pytest.approx(data.body(body).xipos[2], abs=1e-12)
            turned = np.cos(angles[i, k]), np.sin(angles[i, k])
            assert turned == pytest.approx(tuple(data.body(body).xmat[[0, 2]]), abs=1e-12)
        assert speed[i] == pytest.approx(data.sensor("torso_subtreelinvel").data[0], abs=1e-12)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ('<body><joint type="hinge" axis="1 0 0"/><geom size=".1"/></body>', "does not belong"),
        ('<body><freejoint/><geom size=".1"/></body>', "does not belong"),
        ('<body euler="0 90 0"><joint type="hinge" axis="0 1 0"/><geom size=".1"/></body>', "is turned"),
        (
            '<body><joint type="hinge" axis="0 1 0"/><joint type="slide" axis="1 0 0"/><geom size=".1"/></body>',
            "does not belong",
        ),
    ],
    ids=["other axis", "free", "turned", "slide on a hinge"],
)
def test_what_is_not_planar_is_refused(body: str, why: str) -> None:
    model = mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{body}</worldbody></mujoco>")
    with pytest.raises(ValueError, match=why):
        Tree.of(model)
