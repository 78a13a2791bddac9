"""Thinned trajectories, and the pictures of states: beside MuJoCo's own geometry."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from pmpo_offline import tasks
from pmpo_offline.tasks.control.simulation import begin
from pmpo_offline.tasks.control.task import SEEN
from pmpo_offline.tasks.simulated import Step
from pmpo_offline.tasks.stacking.picture import CAMERA
from pmpo_offline.tasks.stacking.scene import TRIPLETS, compile_scene
from pmpo_offline.tasks.stacking.simulation import StackingSimulation
from pmpo_offline.tasks.stacking.task import held_out_layouts
from pmpo_offline.tasks.trajectories import POINTS, Recorder


def test_of_every_episode_there_are_evenly_spaced_steps_and_the_last() -> None:
    lengths = np.array([1, 5, POINTS, POINTS + 1, 50, 2 * POINTS, 100, 1000])
    recorder, active = Recorder(len(lengths), 2, 3), np.arange(len(lengths))
    for t in range(lengths.max()):
        done = lengths[active] == t + 1
        seen = active[:, None] + 1000 * (t + 1.0) + np.zeros(3)
        recorder(active, t, np.full((len(active), 2), -t), Step(seen, seen[:, 0] / 2, done, done))
        active = active[~done]
    found = recorder.trajectories
    assert found.step.shape == (len(lengths), POINTS + 1)
    for episode, length in enumerate(lengths):
        kept = found.step[episode] > 0
        steps = found.step[episode, kept]
        assert kept.sum() == min(length, kept.sum()) >= min(length, POINTS // 2)
        assert (steps[0], steps[-1]) == (1, length)
        assert len({*np.diff(steps[:-1])}) <= 1
        assert np.array_equal(found.observation[episode, kept], np.repeat(1000.0 * steps[:, None] + episode, 3, 1))
        assert np.array_equal(found.reward[episode, kept], (1000.0 * steps + episode) / 2)
        assert np.array_equal(found.action[episode, kept, 0], 1.0 - steps)
    assert found.step[1, :6].tolist() == [1, 2, 3, 4, 5, 0]


@pytest.mark.parametrize("name", SEEN)
def test_strokes_of_a_mechanism_are_mujocos_capsules(name: str) -> None:
    task = tasks.get(name)
    simulation, rng = begin(task.rules, [0]), np.random.default_rng(0)
    for _ in range(5):
        simulation.step(rng.uniform(-1, 1, (1, task.action_dim)))
    model, data = task.rules.model, mujoco.MjData(task.rules.model)
    data.qpos[:] = simulation.state[0, 1 : 1 + model.nq]
    data.qpos[0] = 0.0  # is not observed
    mujoco.mj_forward(model, data)
    (picture,) = task.draw(simulation.observation.astype(np.float32))
    drawn = [figure for figure in picture if figure.kind == "body"]
    capsules = [i for i in range(model.ngeom) if model.geom_type[i] == mujoco.mjtGeom.mjGEOM_CAPSULE]
    for figure, geom in zip(drawn, capsules, strict=True):
        half = data.geom_xmat[geom].reshape(3, 3)[:, 2] * model.geom_size[geom, 1]
        ends = [data.geom_xpos[geom] - half, data.geom_xpos[geom] + half]
        assert figure.points == pytest.approx(np.array(ends)[:, [0, 2]], abs=1e-5)
        assert figure.width == pytest.approx(2 * model.geom_size[geom, 0])
    assert tasks.get("dm_control/reacher-easy").draw(simulation.observation) == []


def test_blocks_are_drawn_where_mujoco_has_them() -> None:
    layouts, names = held_out_layouts(5)
    simulation = StackingSimulation(layouts)
    for _ in range(3):
        simulation.step(np.zeros((5, 5)))
    pictures = tasks.get("rgb-stacking/proxy").draw(simulation.observation)
    for state, picture, name in zip(simulation.state, pictures, names, strict=True):
        model = compile_scene(TRIPLETS[name])
        data = mujoco.MjData(model)
        mujoco.mj_setState(model, data, state, mujoco.mjtState.mjSTATE_FULLPHYSICS)
        mujoco.mj_forward(model, data)
        figures = {figure.kind: figure for figure in picture}
        for colour in ("red", "blue"):
            geom = model.geom(colour)
            start, count = (getattr(model, f"mesh_vert{each}")[geom.dataid[0]] for each in ("adr", "num"))
            corners = model.mesh_vert[start : start + count] @ data.geom(colour).xmat.reshape(3, 3).T
            seen = (corners + data.geom(colour).xpos) @ CAMERA.T
            drawn = figures[colour].points
            # A block of two unequal pairs of faces may be drawn a quarter turn off: both can be grasped.
            assert drawn.mean(0) == pytest.approx(seen.mean(0), abs=0.006), name
            if name == "5-boxes":
                assert drawn.min(0) == pytest.approx(seen.min(0), abs=1e-3)
                assert drawn.max(0) == pytest.approx(seen.max(0), abs=1e-3)
        tips = next(figure for figure in picture if figure.kind == "hand").points
        assert abs(tips[:, 0].mean() - data.body("hand").xpos[0]) < 0.06
