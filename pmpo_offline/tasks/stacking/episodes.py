"""Play stacking episodes in one batch: the loop that collecting, scoring and filming have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pmpo_offline.runtime import progress
from pmpo_offline.tasks.stacking.rewards import HOLD_STEPS, reward
from pmpo_offline.tasks.stacking.simulation import Array, Layout, Scene, Simulation
from pmpo_offline.tasks.task import Outcome

HORIZON = 200
"""Control steps after which an episode is truncated."""

Choose = Callable[[Scene, NDArray[np.intp], int], Array]
"""From the scene of the episodes still running, their indices (m,) and the time step, their actions (m, 5)."""
Watch = Callable[[Simulation, Scene, NDArray[np.intp], Array, Array], None]
"""Told after every step: the simulation, the scene before, who acted, the actions (m, 5) and the rewards (m,)."""


def play(
    layouts: Sequence[Layout],
    choose: Choose,
    *,
    threads: int = 1,
    watch: Watch | None = None,
) -> Outcome:
    """Play every layout to its end. An episode does not depend on the others in the batch, nor on `threads`."""
    simulation = Simulation(layouts, threads)
    n = len(layouts)
    returns, length, streak = np.zeros(n), np.zeros(n, np.int64), np.zeros(n, np.int64)
    active = np.arange(n)
    scene = simulation.scene()
    for t in range(HORIZON):
        action = choose(scene, active, t)
        simulation.step(action, active)
        after = simulation.scene(active)
        gained, good = reward(after)
        if watch:
            watch(simulation, scene, active, action, gained)
        returns[active] += gained
        length[active] += 1
        streak[active] = np.where(good, streak[active] + 1, 0)
        running = streak[active] < HOLD_STEPS
        active = active[running]
        progress.report("play episodes", t + 1, HORIZON)
        if not len(active):
            break
        scene = after if running.all() else simulation.scene(active)
    progress.report("play episodes", HORIZON, HORIZON)
    return Outcome(returns, length, streak >= HOLD_STEPS)
