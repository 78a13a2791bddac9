"""Every documented column, computed again from the simulator's state."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pmpo_offline.tasks.stacking.scene import TRIPLETS, Array, random_layout
from pmpo_offline.tasks.stacking.simulation import OBSERVATION_DIM, StackingSimulation, observe
from pmpo_offline.tasks.stacking.task import Script, StackingBehavior

LAYOUTS = [random_layout(np.random.default_rng(i), triplet) for i, triplet in enumerate(TRIPLETS.values())]


@pytest.fixture(scope="module")
def moments() -> tuple[Array, Array, Array]:
    """States, sensors and observations of five scripted episodes, every seventh step: (n, 58), (n, 7), (n, 80)."""
    simulation = StackingSimulation(LAYOUTS)
    script = Script.of([StackingBehavior(name="script", weight=1)] * len(LAYOUTS))
    seen = []
    for t in range(70):
        if t % 7 == 0:
            seen.append((simulation.state.copy(), simulation.sensors.copy(), observe(simulation.scene())))
        simulation.step(script.act(simulation.scene()))
    return tuple(np.concatenate(each) for each in zip(*seen, strict=True))


def test_shape_and_type(moments: tuple[Array, Array, Array]) -> None:
    observed = moments[2]
    assert observed.shape[1] == OBSERVATION_DIM == 80
    assert observed.dtype == np.float32
    assert np.isfinite(observed).all()


def test_hand(moments: tuple[Array, Array, Array]) -> None:
    state, sensors, observed = moments
    qpos, qvel, act = state[:, 1:28], state[:, 28:52], state[:, 52:]
    close = {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(observed[:, 0:3], qpos[:, :3] + [0, 0, 0.02], **close)
    np.testing.assert_allclose(observed[:, 3:5], np.stack([np.sin(qpos[:, 3]), np.cos(qpos[:, 3])], 1), **close)
    np.testing.assert_allclose(observed[:, 5:7], qpos[:, 4:6], **close)
    np.testing.assert_allclose(observed[:, 7:13], qvel[:, :6], **close)
    np.testing.assert_allclose(observed[:, 13:15], np.clip(sensors[:, :2], 0, 20) / 20, **close)
    np.testing.assert_allclose(observed[:, 15:21], act - qpos[:, :6], **close)
    assert observed[:, 13:15].max() > 0.05, "nothing was ever grasped"


@pytest.mark.parametrize(("place", "first"), [(0, 21), (1, 33), (2, 45)], ids=["red", "green", "blue"])
def test_objects_relative_to_the_hand(moments: tuple[Array, Array, Array], place: int, first: int) -> None:
    state, _, observed = moments
    tips = state[:, 1:4] + [0, 0, 0.02]
    pose = state[:, 7 + 7 * place : 14 + 7 * place]
    up = Rotation.from_quat(pose[:, [4, 5, 6, 3]]).as_matrix()[:, :, 2]
    velocity = state[:, 34 + 6 * place : 37 + 6 * place]
    turn = observed[:, first + 8]
    close = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(observed[:, first : first + 3], pose[:, :3] - tips, **close)
    np.testing.assert_allclose(observed[:, first + 3 : first + 6], up, **close)
    np.testing.assert_allclose(observed[:, first + 6], np.sin(2 * turn), **close)
    np.testing.assert_allclose(observed[:, first + 7], np.cos(2 * turn), **close)
    np.testing.assert_allclose(observed[:, first + 9 : first + 12], velocity, **close)


@pytest.mark.parametrize(("place", "first"), [(2, 57), (1, 60)], ids=["blue", "green"])
def test_offsets_from_the_bottom_of_red_to_the_tops(
    moments: tuple[Array, Array, Array], place: int, first: int
) -> None:
    state, _, observed = moments
    triplets = list(TRIPLETS.values()) * (len(state) // len(TRIPLETS))

    def centre_of_face(o: int, side: int) -> Array:
        pose = state[:, 7 + 7 * o : 14 + 7 * o]
        shapes = [triplet[o] for triplet in triplets]
        corners = np.stack(
            [s.vertices()[s.sides :].mean(0) if side > 0 else s.vertices()[: s.sides].mean(0) for s in shapes]
        )
        return pose[:, :3] + Rotation.from_quat(pose[:, [4, 5, 6, 3]]).apply(corners)

    expected = centre_of_face(place, 1) - centre_of_face(0, -1)
    # The bodies' frames stand 10 micrometres off their meshes' (see the scene).
    np.testing.assert_allclose(observed[:, first : first + 3], expected, atol=5e-5)


def test_contacts_and_shapes(moments: tuple[Array, Array, Array]) -> None:
    _, sensors, observed = moments
    np.testing.assert_array_equal(observed[:, 63:68], (sensors[:, 2:] > 0).astype(np.float32))
    assert set(np.unique(observed[:, 63:68])) == {0.0, 1.0}
    for episode, triplet in enumerate(TRIPLETS.values()):
        own = observed[episode :: len(TRIPLETS)]
        expected = np.concatenate([triplet[0].describe(), triplet[2].describe()]).astype(np.float32)
        np.testing.assert_array_equal(own[:, 68:], np.tile(expected, (len(own), 1)))
