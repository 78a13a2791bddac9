"""Batched physics: an episode is the same alone, in company, in another order and on two threads, to the last bit."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from pmpo_offline.tasks.stacking.scene import (
    OBJECTS,
    TOUCHES,
    TRIPLETS,
    Array,
    Layout,
    compile_scene,
    random_layout,
    random_triplet,
)
from pmpo_offline.tasks.stacking.simulation import ACTION_SCALE, StackingSimulation

N, STEPS = 10, 40


def layout(seed: int) -> Layout:
    rng = np.random.default_rng(seed)
    return random_layout(rng, random_triplet(rng))


LAYOUTS = [layout(seed) for seed in range(N)]
_held = np.random.default_rng(0).uniform(-1, 1, (N, STEPS // 8, 5)).repeat(8, axis=1)
_held[..., 2] -= 0.4  # downwards, into the objects
ACTIONS = _held.clip(-1, 1)


def states(order: list[int], threads: int = 1) -> Array:
    """Play the fixed actions of the episodes `order` in one batch; (len(order), STEPS, 58 + 7)."""
    simulation = StackingSimulation([LAYOUTS[i] for i in order], threads)
    seen = []
    for t in range(STEPS):
        simulation.step(ACTIONS[order, t])
        seen.append(np.concatenate([simulation.state, simulation.sensors], axis=1))
    return np.stack(seen, axis=1)


@pytest.fixture(scope="module")
def together() -> Array:
    return states(list(range(N)))


def test_something_happens(together: Array) -> None:
    touched = together[:, :, 60:65].max(axis=(0, 1)) > 0
    assert touched[0] or touched[1], "no pad ever touched red: the comparison would prove little"
    assert np.isfinite(together).all()
    assert np.linalg.norm(together[:, -1, 7:27] - together[:, 0, 7:27], axis=1).max() > 0.02


def test_episode_is_the_same_alone(together: Array) -> None:
    for i in range(N):
        np.testing.assert_array_equal(states([i])[0], together[i])


@pytest.mark.parametrize("order", [list(range(N))[::-1], [3, 3, 7, 0], [9, 1]], ids=str)
@pytest.mark.parametrize("threads", [1, 2])
def test_episode_is_the_same_in_other_company(together: Array, order: list[int], threads: int) -> None:
    np.testing.assert_array_equal(states(order, threads), together[order])


def test_episode_is_the_same_when_others_have_ended(together: Array) -> None:
    simulation = StackingSimulation(LAYOUTS)
    active = np.arange(N)
    for t in range(STEPS):
        if t % 5 == 4:
            active = active[active != t // 5]
        before = simulation.state.copy()
        simulation.step(ACTIONS[active, t], active)
        np.testing.assert_array_equal(simulation.state[active], together[active, t, :58])
        ended = np.setdiff1d(np.arange(N), active)
        np.testing.assert_array_equal(simulation.state[ended], before[ended])


def test_a_control_step_is_ten_steps_of_plain_mujoco() -> None:
    simulation = StackingSimulation(LAYOUTS)
    contacts = set()
    for t in range(STEPS):
        before = simulation.state.copy()
        simulation.step(ACTIONS[:, t])
        i = t % N
        model = compile_scene(LAYOUTS[i].triplet)
        data = mujoco.MjData(model)
        mujoco.mj_setState(model, data, before[i], mujoco.mjtState.mjSTATE_FULLPHYSICS)
        data.ctrl[:] = (ACTIONS[i, t] * ACTION_SCALE)[[0, 1, 2, 3, 4, 4]]
        mujoco.mj_step(model, data, 10)
        after = np.empty(58)
        mujoco.mj_getState(model, data, after, mujoco.mjtState.mjSTATE_FULLPHYSICS)
        np.testing.assert_array_equal(simulation.state[i], after)
        # The contact flags say what MuJoCo's own list of contacts says.
        listed = {frozenset((model.geom(a).name, model.geom(b).name)) for a, b in data.contact.geom}
        scene = simulation.scene(np.array([i]))
        assert {pair for pair, touches in scene.touching.items() if touches[0]} == {
            pair for pair in TOUCHES if frozenset(pair) in listed
        }
        contacts |= listed
    assert frozenset(("red", "floor")) in contacts


def test_scenes_of_all_triplets_share_one_size() -> None:
    triplets = [random_triplet(np.random.default_rng(seed)) for seed in range(40)] + list(TRIPLETS.values())
    models = [compile_scene(triplet) for triplet in triplets]
    # One scratch structure for all of them depends on it; a symmetric body once had a smaller mass matrix.
    for name in ("nq", "nv", "na", "nu", "nM", "nB", "nC", "nD", "nbody", "ngeom", "nsensordata", "narena"):
        assert len({getattr(model, name) for model in models}) == 1, name
    assert (models[0].nq, models[0].nv, models[0].nu) == (27, 24, 6)
    assert max(model.nbvh for model in models) > min(model.nbvh for model in models), "the sizes that do differ"


def test_smallest_and_largest_scene_in_one_batch() -> None:
    everything = [random_layout(np.random.default_rng(i), triplet) for i, triplet in enumerate(TRIPLETS.values())]
    everything += LAYOUTS
    by_size = sorted(everything, key=lambda each: compile_scene(each.triplet).nbvh)
    pair = [by_size[0], by_size[-1]]
    action = np.array([0.3, -0.2, -1.0, 0.5, -1.0])
    alone = [StackingSimulation([each]) for each in pair]
    for order in (pair, pair[::-1]):
        together = StackingSimulation(order, threads=2)
        for _ in range(20):
            together.step(np.tile(action, (2, 1)))
        for place, each in enumerate(order):
            single = alone[pair.index(each)]
            if single.state[0, 0] == 0:
                for _ in range(20):
                    single.step(action[None])
            np.testing.assert_array_equal(together.state[place], single.state[0])


def test_layouts_keep_objects_apart_and_on_the_floor() -> None:
    for seed in range(50):
        pose = layout(seed).qpos[6:].reshape(3, 7)
        gaps = [np.linalg.norm(pose[i, :2] - pose[j, :2]) for i, j in ((0, 1), (0, 2), (1, 2))]
        assert min(gaps) > 0.08
        np.testing.assert_allclose(np.linalg.norm(pose[:, 3:], axis=1), 1)
    settled = StackingSimulation(LAYOUTS).scene()
    half_heights = np.array([[shape.half_height for shape in each.triplet] for each in LAYOUTS])
    np.testing.assert_allclose(settled.position[..., 2], half_heights, atol=2e-3)


def test_commands_are_velocities_at_full_scale_and_clipped() -> None:
    one, many = StackingSimulation(LAYOUTS[:1]), StackingSimulation(LAYOUTS[:1])
    start = one.scene().setpoint
    for _ in range(4):
        one.step(np.array([[0.5, 0, 0, 1, 0]]))
        many.step(np.array([[0.5, 0, 0, 9, 0]]))
    np.testing.assert_array_equal(one.state, many.state)
    moved = one.scene().setpoint - start
    np.testing.assert_allclose(moved[0], [0.5 * 0.3 * 0.2, 0, 0, 2.0 * 0.2, 0, 0], atol=1e-9)  # 0.2 seconds


def test_grasp_error_turns_the_fingers_onto_a_pair_of_faces() -> None:
    simulation = StackingSimulation([layout(seed) for seed in range(30)])
    scene = simulation.scene()
    for i, o in np.ndindex(len(simulation), len(OBJECTS)):
        aim = scene.yaw[i] + scene.grasp_error[i, o]
        assert abs(aim) <= np.pi / 2 + 1e-9, "within reach of the joint"
        line = np.array([-np.sin(aim), np.cos(aim)])  # along which the fingers close
        normals = [scene.rotation[i, o, :2, :2] @ [np.cos(g), np.sin(g)] for g in simulation.geometry.grasps[i, o]]
        assert max(abs(line @ normal) for normal in normals) == pytest.approx(1, abs=1e-4)
