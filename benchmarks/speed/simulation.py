"""How fast our batched simulator steps control tasks, beside the official environments and MuJoCo with nothing around.

    python -m benchmarks.speed.simulation               # about three minutes
    python -m benchmarks.speed.simulation --tasks dm_control/cheetah-run

All play uniformly random actions and reset when an episode ends. They take turns, one slot each, round after round, so
that whatever else the machine does hits all alike; figures are medians of the slots, in control steps a
second of the processor. Beginnings are clocked apart: ours are drawn by the official environments' own code.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # before NumPy reads them
os.environ.setdefault("MUJOCO_GL", "disable")

import mujoco
import numpy as np
from mujoco import rollout

from benchmarks.experiments import shared
from pmpo_offline.tasks import control
from pmpo_offline.tasks.control.gymnasium_v5 import TASKS as RUNNERS
from pmpo_offline.tasks.control.simulation import quiet

COLUMNS = ("task", "official", "ours", "min to max", "times", "with beginnings, times", "MuJoCo alone", "times")
GOAL = "dm_control/cheetah-run", 10.0


@dataclass(frozen=True)
class Slot:
    """What was done in a slot, and the seconds of the processor that it took."""

    steps: int
    stepping: float
    beginning: float

    @property
    def rate(self) -> float:
        """Control steps a second, beginnings not counted."""
        return self.steps / self.stepping

    @property
    def whole(self) -> float:
        """Control steps a second, beginnings counted."""
        return self.steps / (self.stepping + self.beginning)


Contender = Callable[[float], Slot]
"""Plays for about so many seconds of the processor."""


def official(name: str) -> Contender:
    """Step the official environment, one episode after the other."""
    family, task = name.split("/")
    rng = np.random.default_rng(0)
    if family == "mujoco":
        import gymnasium

        with quiet():
            env: Any = gymnasium.make(RUNNERS[task].official, disable_env_checker=True)
        low, high = env.action_space.low, env.action_space.high

        def step(action: Any) -> bool:
            _, _, terminated, truncated, _ = env.step(action)
            return bool(terminated or truncated)
    else:
        from dm_control import suite

        with quiet():
            env = suite.load(*task.split("-"), task_kwargs={"random": 0})
        low, high = env.action_spec().minimum, env.action_spec().maximum

        def step(action: Any) -> bool:
            return bool(env.step(action).last())

    env.reset()
    actions = rng.uniform(low, high, (997, len(low)))

    def play(seconds: float) -> Slot:
        steps, stepping, beginning = 0, 0.0, 0.0
        while stepping < seconds:
            start, done = time.process_time(), False
            for _ in range(50):  # clocked together: the clock is not free
                steps += 1
                done = step(actions[steps % len(actions)])
                if done:
                    break
            middle = time.process_time()
            if done:
                env.reset()
            stepping, beginning = stepping + middle - start, beginning + time.process_time() - middle
        return Slot(steps, stepping, beginning)

    return play


def ours(simulation: control.Simulation) -> Contender:
    """Step a batch; episodes are reset as they end."""
    n = len(simulation)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (199, n, simulation.rules.action_dim))
    simulation.reset(range(n))
    simulation.elapsed[:] = rng.integers(0, simulation.rules.horizon, n)  # beginnings fall evenly on all slots

    def play(seconds: float) -> Slot:
        steps, stepping, beginning = 0, 0.0, 0.0
        while stepping < seconds:
            start = time.process_time()
            done = np.flatnonzero(simulation.step(actions[steps // n % len(actions)]).done)
            middle = time.process_time()
            if len(done):
                simulation.reset(done + steps, done)
            steps, stepping, beginning = steps + n, stepping + middle - start, beginning + time.process_time() - middle
        return Slot(steps, stepping, beginning)

    return play


def alone(simulation: control.Simulation, periods: int = 20) -> Contender:
    """Let MuJoCo roll out the official model from where our episodes are: no observation, no reward, no policy."""
    rules, n = simulation.rules, len(simulation)
    scratch, pool = mujoco.MjData(rules.model), rollout.Rollout(nthread=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (n, periods, rules.action_dim)).repeat(rules.substeps, axis=1)

    def play(seconds: float) -> Slot:
        steps, start = 0, time.process_time()
        while time.process_time() - start < seconds:
            pool.rollout(rules.model, scratch, simulation.state, actions)
            steps += n * periods
        return Slot(steps, time.process_time() - start, 0.0)

    return play


def measure(name: str, episodes: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Return the figures of one task."""
    simulation = control.Simulation(control.rules(name), episodes)
    contenders = {"official": official(name), "ours": ours(simulation), "alone": alone(simulation)}
    slots: dict[str, list[Slot]] = {who: [] for who in contenders}
    for play in contenders.values():
        play(seconds / 4)
    for _ in range(rounds):
        for who, play in contenders.items():
            slots[who].append(play(seconds))
    rates = {who: [slot.rate for slot in each] for who, each in slots.items()}
    whole = {who: statistics.median(slot.whole for slot in each) for who, each in slots.items()}
    medians = {who: statistics.median(each) for who, each in rates.items()}
    return {
        "task": name,
        **{f"{who}_rate": rate for who, rate in medians.items()},
        "ours_min": min(rates["ours"]),
        "ours_max": max(rates["ours"]),
        "official_whole_rate": whole["official"],
        "ours_whole_rate": whole["ours"],
        "times": medians["ours"] / medians["official"],
        "times_whole": whole["ours"] / whole["official"],
        "times_alone": medians["alone"] / medians["official"],
    }


def cells(row: dict[str, Any]) -> list[str]:
    """Return a task's row of the table."""
    return [
        row["task"],
        f"{row['official_rate']:,.0f}",
        f"{row['ours_rate']:,.0f}",
        f"{row['ours_min']:,.0f} to {row['ours_max']:,.0f}",
        f"{row['times']:.1f}",
        f"{row['times_whole']:.1f}",
        f"{row['alone_rate']:,.0f}",
        f"{row['times_alone']:.1f}",
    ]


def markdown(found: dict[str, Any]) -> str:
    """Return the page that is committed."""
    here, rows = found["machine"], found["tasks"]
    goal = next((row for row in rows if row["task"] == GOAL[0]), None)
    lines = [
        "# Speed of the control simulator",
        "",
        f"{here['processor']}, one thread of {here['cores']} cores; load {here['load']} at the end; Python "
        f"{here['python']}, MuJoCo {here['mujoco']}, dm_control {here['dm_control']}, Gymnasium {here['gymnasium']}, "
        f"NumPy {here['numpy']}. Written by `python -m benchmarks.speed.simulation`.",
        "",
        "Control steps a second of the processor under random actions, medians of slots in turns: the official "
        f"environment stepped in Python, ours with {found['episodes']} episodes at once and an action for each "
        "at every step, and MuJoCo alone, which rolls out the official model with nothing between the steps. "
        "Multiples are of the official rate; *with beginnings* counts the drawing of initial states for both.",
        "",
        *shared.table(COLUMNS, map(cells, rows), "lr"),
    ]
    if goal:
        lines += [
            "",
            f"Goal: {GOAL[1]:g} times dm_control on cheetah-run; found {goal['times']:.1f}. MuJoCo's own steps with "
            f"nothing around them are {goal['times_alone']:.1f} times: no way of calling it gives much more than that.",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print the page, and write it and its JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=list(control.RULES), default=list(control.RULES))
    parser.add_argument("--episodes", type=int, default=256, help="episodes of a batch")
    parser.add_argument("--rounds", type=int, default=7, help="slots of each contender")
    parser.add_argument("--seconds", type=float, default=0.7, help="length of a slot, of the processor")
    parser.add_argument("--out", type=Path, default=shared.RESULTS / "speed")
    arguments = parser.parse_args()
    rows = []
    for name in arguments.tasks:
        rows.append(measure(name, arguments.episodes, arguments.rounds, arguments.seconds))
        print(f"{name}: {rows[-1]['times']:.1f} times", file=sys.stderr)
    machine = shared.machine("mujoco", "dm_control", "gymnasium", "numpy", load=shared.load())
    found = {"episodes": arguments.episodes, "tasks": rows, "machine": machine}
    shared.publish(arguments.out / "simulation", found, markdown(found))


if __name__ == "__main__":
    main()
