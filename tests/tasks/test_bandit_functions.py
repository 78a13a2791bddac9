"""Regrets: 0 at the best action, 1 on average, textbook values in between."""

from __future__ import annotations

import math

import pytest
import torch

from pmpo_offline.tasks.bandit import FUNCTIONS, Function

every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())


@every_function
@pytest.mark.parametrize("dimensions", [2, 10, 50])
def test_the_best_action_has_no_regret_and_its_neighbours_have_some(function: Function, dimensions: int):
    best = torch.full((dimensions,), function.best, dtype=torch.float64)
    assert function.regret(best).item() == pytest.approx(0, abs=1e-15)
    assert function.regret(best.float()).item() == pytest.approx(0, abs=1e-10)
    step = 1e-3 * torch.cat([torch.eye(dimensions), -torch.eye(dimensions)])
    assert (function.regret(best + step) > 0).all()


@every_function
@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_mean_regret_of_the_box_is_one(function: Function, dimensions: int):
    """By the midpoint rule: 360,000 points in two dimensions, a million in three."""
    points = {2: 600, 3: 100}[dimensions]
    axis = (2 * torch.arange(points, dtype=torch.float64) + 1) / points - 1
    grid = torch.stack(torch.meshgrid(*[axis] * dimensions, indexing="ij"), dim=-1)
    assert function.regret(grid).mean().item() == pytest.approx(1, rel=1e-3)


@every_function
def test_nothing_in_the_box_is_better_than_the_best(function: Function):
    draws = torch.rand(100_000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert (function.regret(draws) > 0).all()
    assert function.regret(draws).mean().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("name", "x", "value"),
    [
        ("sphere", [0.0, 0.0], 0.5),  # two halves, squared
        ("sphere", [-0.5, 1.0], 1.25),
        ("rosenbrock", [0.0, 0.0], 1.0),
        ("rosenbrock", [-1.2, 1.0], 24.2),  # where textbooks start
        ("rosenbrock", [2.0, 0.0, 1.0], 100 * 16 + 1 + 100 + 1),
        ("schwefel", [0.0, 0.0], 2 * 418.9828872724338),
        ("schwefel", [-302.5249351839932, -302.5249351839932], 2 * (418.9828872724338 - 300.5445)),  # the second best
    ],
)
def test_textbook_values(name: str, x: list[float], value: float):
    width = {"sphere": 1.0, "rosenbrock": 2.048, "schwefel": 500.0}[name]
    function = FUNCTIONS[name]
    found = function.regret(torch.tensor(x, dtype=torch.float64) / width) * function.average(len(x))
    assert found.item() == pytest.approx(value, rel=1e-6)


def test_schwefels_best_is_a_stationary_point():
    root = math.sqrt(500 * FUNCTIONS["schwefel"].best)
    assert math.tan(root) == pytest.approx(-root / 2, rel=1e-9)


@every_function
def test_leading_dimensions_are_kept_and_actions_clipped(function: Function):
    action = torch.randn(3, 4, 5, 2, generator=torch.Generator().manual_seed(1))
    regret = function.regret(action)
    assert regret.shape == (3, 4, 5)
    assert regret.dtype == torch.float32
    torch.testing.assert_close(regret, function.regret(action.clamp(-1, 1)))
    torch.testing.assert_close(regret[1, 2, 3], function.regret(action[1, 2, 3]))
    torch.testing.assert_close(function.reward(action), -regret)


def test_rosenbrock_needs_two_dimensions():
    with pytest.raises(ValueError, match="2 dimensions or more, not 1"):
        FUNCTIONS["rosenbrock"].regret(torch.zeros(7, 1))
