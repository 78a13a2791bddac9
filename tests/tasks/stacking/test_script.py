"""The script solves the task, its systematic variants do not, and all of them see nothing but the present state."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import pytest

from pmpo_offline.tasks import Outcome
from pmpo_offline.tasks.simulated import Array, Index, play
from pmpo_offline.tasks.stacking.simulation import StackingSimulation
from pmpo_offline.tasks.stacking.task import Script, StackingBehavior, correlated_noise, held_out_layouts

EPISODES, FEWER = 10, 5
"""Of the variants that succeed at times, and of those that never do and take the whole horizon."""
VARIANTS = {
    "script": {},
    "green": {"target": "green"},
    "clings": {"clings": True},
    "drops": {"drop": 0.12},
    "knocks": {"knock": True},
    "off-centre": {"offset": 0.03},
}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    """Noise-free episodes of every variant on the first of the same held-out layouts."""
    layouts, _ = held_out_layouts(EPISODES)
    counts = {name: EPISODES if name in ("script", "off-centre") else FEWER for name in VARIANTS}
    variants = {name: StackingBehavior(name=name, weight=1, **changes) for name, changes in VARIANTS.items()}
    script = Script.of([variants[name] for name, count in counts.items() for _ in range(count)])
    simulation = StackingSimulation([layout for count in counts.values() for layout in layouts[:count]])

    def choose(active: Index, t: int) -> Array:
        return script.take(active).act(simulation.scene(active))

    done = play(simulation, choose)
    ends = dict(zip(counts, accumulate(counts.values()), strict=True))
    parts = {name: slice(end - counts[name], end) for name, end in ends.items()}
    return {name: Outcome(done.returns[p], done.length[p], done.success[p]) for name, p in parts.items()}


def test_noise_free_script_succeeds_on_held_out_layouts(outcomes: dict[str, Outcome]) -> None:
    script = outcomes["script"]
    assert script.success.mean() >= 0.95
    assert script.length[script.success].mean() < 100, "well within the horizon"


@pytest.mark.parametrize("name", ["green", "clings"])
def test_wrong_by_design_never_succeeds(outcomes: dict[str, Outcome], name: str) -> None:
    assert not outcomes[name].success.any()
    assert (outcomes[name].length == 200).all()


@pytest.mark.parametrize("name", ["drops", "knocks", "off-centre"])
def test_other_errors_cost_success(outcomes: dict[str, Outcome], name: str) -> None:
    assert outcomes[name].success.mean() <= outcomes["script"].success.mean() - 0.2
    assert outcomes[name].returns.mean() < outcomes["script"].returns.mean()


def test_noise_has_its_scale_and_its_memory() -> None:
    noise = correlated_noise(np.array([0.0, 0.1, 0.25]), 200, np.random.default_rng(0))
    assert noise.shape == (3, 200, 5)
    assert not noise[0].any()
    for scale, part in ((0.1, noise[1]), (0.25, noise[2])):
        # First-order autoregression: deviation = scale * 0.7 / sqrt(1 - 0.49).
        assert part[20:].std() == pytest.approx(scale * 0.7 / np.sqrt(1 - 0.49), rel=0.15)
        lagged = np.corrcoef(part[20:-1].ravel(), part[21:].ravel())[0, 1]
        assert lagged == pytest.approx(0.7, abs=0.1)
