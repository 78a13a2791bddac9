"""Reward stages of states that are made up by hand, and how an episode ends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from pmpo_offline.tasks import Outcome
from pmpo_offline.tasks.simulated import Index, Step, play
from pmpo_offline.tasks.stacking.scene import TOUCHES, TRIPLETS, Array, Layout
from pmpo_offline.tasks.stacking.simulation import (
    HOLD_STEPS,
    HORIZON,
    TCP_HEIGHT,
    Geometry,
    Scene,
    StackingSimulation,
    stage,
)

BOXES = TRIPLETS["5-boxes"]  # red 22 mm half-height and half-width, blue 22 mm high and 25 mm wide
UPRIGHT = (1.0, 0.0, 0.0, 0.0)
PADS = (("red", "left_pad"), ("red", "right_pad"))
ON_BLUE, ON_FLOOR = ("red", "blue"), ("red", "floor")
Touches = Sequence[tuple[str, str]]


def made_up(red: Sequence[float], tips: Sequence[float], touching: Touches = (), *, opening: float = 0.02) -> Scene:
    """One state: blue at the origin of the floor, green in a corner, all upright."""
    hand = [tips[0], tips[1], tips[2] - TCP_HEIGHT, 0.0, opening, opening]
    poses = [*red, *UPRIGHT, 0.1, 0.1, 0.022, *UPRIGHT, 0.0, 0.0, 0.022, *UPRIGHT]
    state = np.array([[0.0, *hand, *poses, *np.zeros(24), *hand]])
    sensors = np.array([[0.0, 0.0, *(float(pair in touching) for pair in TOUCHES)]])
    return Scene(state, sensors, Geometry.of([BOXES]))


def rated(*args: object, **kwargs: float) -> tuple[float, bool]:
    value, success = stage(made_up(*args, **kwargs))  # type: ignore[arg-type]
    return float(value[0]), bool(success[0])


ASIDE = [0.1, 0.0, 0.022]
ABOVE = [0.1, 0.0, 0.022 + 0.05]
OVER = [0.0, 0.0, 0.044 + 0.022 + 0.01]  # 10 mm over the top of blue
ON_TOP = [0.0, 0.0, 0.044 + 0.022]
STAGES = {
    "far": rated(ASIDE, [0.1, 0.0, 0.222], [ON_FLOOR]),
    "reach": rated(ASIDE, ASIDE, [ON_FLOOR]),
    "grasp": rated(ASIDE, ASIDE, [*PADS, ON_FLOOR]),
    "lift": rated(ABOVE, ABOVE, PADS),
    "hover": rated(OVER, OVER, PADS),
    "stacked": rated(ON_TOP, ON_TOP, [*PADS, ON_BLUE]),
    "let go": rated(ON_TOP, ON_TOP, [ON_BLUE]),
    "clear above": rated(ON_TOP, [0, 0, ON_TOP[2] + 0.041], [ON_BLUE]),
    "clear aside": rated(ON_TOP, ON_TOP, [ON_BLUE], opening=0.031),
}
HEIGHT_OVER = (OVER[2] - 0.022) / 0.05  # capped at 1: it is above 5 cm


def test_stages_by_hand() -> None:
    away = 1 - np.tanh(8 * 0.1)  # 10 cm beside blue: too far to hover
    assert away > 0.3, "10 cm still counts a little; the stage below is chosen with this in mind"
    expected = {
        "far": 0.2 * (1 - np.tanh(8 * 0.2)),
        "reach": 0.2,
        "grasp": 0.3,
        "lift": 0.5 + 0.2 * away,
        "hover": 0.5 + 0.2 * min(HEIGHT_OVER, 1),
        "stacked": 0.75,
        "let go": 0.9,
        "clear above": 1.0,
        "clear aside": 1.0,
    }
    assert {name: value for name, (value, _) in STAGES.items()} == pytest.approx(expected)


def test_stages_rise() -> None:
    values = [value for value, _ in STAGES.values()]
    assert values == sorted(values)
    assert len(set(values)) == len(values) - 1  # the two ways of being clear are worth the same


def test_lift_without_hover() -> None:
    far, high = [0.14, 0.14, 0.022 + 0.04], 0.8
    assert 1 - np.tanh(8 * np.hypot(0.14, 0.14)) < 0.3
    assert rated(far, far, PADS)[0] == pytest.approx(0.35 + 0.1 * high)
    assert rated(far, far)[0] == pytest.approx(0.2), "thrown up, not held: it only counts as reached"
    low = [0.14, 0.14, 0.022 + 0.002]  # 2 mm: the tenth part of a grasp's slack
    assert rated(low, low, PADS)[0] == pytest.approx(0.3)


def test_only_the_last_stage_is_success() -> None:
    assert {name for name, (_, success) in STAGES.items() if success} == {"clear above", "clear aside"}


@pytest.mark.parametrize(
    ("red", "touching"),
    [
        (ON_TOP, []),  # over it, without touching
        (ON_TOP, [("red", "green")]),
        (ON_TOP, [ON_BLUE, ON_FLOOR]),  # leans between blue and the floor
        ([0.0151, 0.0, 0.066], [ON_BLUE]),  # 60 % of blue's half-width of 25 mm is 15 mm
        ([0.0, 0.0, 0.0721], [ON_BLUE]),  # 6.1 mm above its top
        (ON_TOP, [ON_BLUE, PADS[0]]),  # a pad still touches
    ],
    ids=["air", "green", "floor", "edge", "high", "pad"],
)
def test_almost_stacked_is_no_success(red: list[float], touching: Touches) -> None:
    above = [0, 0, red[2] + 0.05]
    assert rated(red, above, touching) != (1.0, True)
    assert not rated(red, above, touching)[1]
    assert rated([0.0149, 0, 0.0719], [0, 0, 0.13], [ON_BLUE]) == (1.0, True)


def start(red: Sequence[float], opening: float = 0.04) -> Layout:
    poses = [*red, *UPRIGHT, 0.1, 0.1, 0.022, *UPRIGHT, 0.0, 0.0, 0.022, *UPRIGHT]
    return Layout(BOXES, np.array([0.0, -0.08, 0.2, 0.0, opening, opening, *poses]))


def idle(active: Index, t: int) -> Array:
    return np.zeros((len(active), 5))


def test_reward_is_what_the_stage_lacks() -> None:
    simulation = StackingSimulation([start(ASIDE), start(ON_TOP)])
    step = simulation.step(np.zeros((2, 5)))
    np.testing.assert_array_equal(step.reward, stage(simulation.scene())[0] - 1)
    assert step.reward[0] < -0.8
    assert step.reward[1] == 0


def test_success_takes_five_steps_and_terminates_and_the_horizon_truncates() -> None:
    outcome = play(StackingSimulation([start(ON_TOP), start(ASIDE), start(ON_TOP)]), idle)
    assert HOLD_STEPS == 5
    assert outcome.length.tolist() == [5, HORIZON, 5] == [5, 200, 5]
    assert outcome.success.tolist() == [True, False, True]
    assert outcome.returns[0] == 0, "a standing stack lacks nothing"
    far = np.linalg.norm([0.1, 0.08, 0.22 - 0.022])
    assert outcome.returns[1] == pytest.approx(200 * (0.2 * (1 - np.tanh(8 * far)) - 1), abs=0.1)


def disturbed(at: int) -> Outcome:
    """Play a standing stack, red a hand's breadth away for one step after step `at`."""
    simulation, kept = StackingSimulation([start(ON_TOP)]), np.zeros(3)

    def watch(active: Index, t: int, taken: Array, step: Step) -> None:
        red = simulation.state[:, 7:10]
        if t + 1 == at:
            kept[:] = red[0]
            red += [0.0, 0.09, 0.05]
        elif t == at:
            red[0] = kept
            simulation.state[:, 28 + 6 : 28 + 12] = 0

    return play(simulation, idle, watch)


@pytest.mark.parametrize("at", [1, 3, 4])
def test_the_five_steps_are_consecutive(at: int) -> None:
    outcome = disturbed(at)
    # `at` good steps, one bad, then five good ones (the first may still be settling).
    assert at + 1 + 5 <= outcome.length[0] <= at + 1 + 5 + 2
    assert outcome.success[0]
