"""PMPO, MPO, DPO and PPO learning control online: the paper's control suite, on two of its tasks.

python -m benchmarks.experiments.online.run            everything under benchmarks/results/online
python -m benchmarks.experiments.online.run --task cheetah-run --algo mpo --output elsewhere

A cell is an algorithm on a task, all its arms and seeds trained as one stack. Cells whose raw results are in the output
are not run again, and an interrupted cell is resumed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import mujoco
import numpy as np
import polars as pl
import torch
import typer
from torch import nn

from benchmarks.experiments import shared
from benchmarks.experiments.online import report
from pmpo_offline.cli.console import working
from pmpo_offline.online.behavior import random_returns, returns, task_id
from pmpo_offline.online.improver import Algorithm
from pmpo_offline.online.online_control import ALGORITHMS, ControlSettings, OnlineControl
from pmpo_offline.online.ppo import PLANS, PPO
from pmpo_offline.policies.behavior import BehaviorPolicy
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.arrays import load_tensors, save_tensors
from pmpo_offline.runtime.errors import unknown
from pmpo_offline.runtime.hashing import hash_json, random_words
from pmpo_offline.tasks.control import Rules, rules

RESULTS = shared.RESULTS / "online"
FRAMES = {"dm_control/cartpole-swingup": 1_000_000, "dm_control/cheetah-run": 1_000_000}
"""Control steps of a run."""
EVALUATIONS, EPISODES = 20, 10
"""How often a run is evaluated, and on how many episodes; all runs on the same ones, which no run is trained on."""

PPO_ALONE = "ppo"
"""The learner beside the three, with its own plan."""


@dataclass(frozen=True)
class Arm:
    """One learner of the comparison."""

    algo: str
    """A name of `ALGORITHMS`, or PPO's. Arms of one algorithm are trained side by side."""
    settings: Mapping[str, float] = field(default_factory=dict)
    """Over those of the algorithm."""
    shuffled: bool = False


ARMS = {
    "PMPO both": Arm("pmpo"),
    "PMPO accepts": Arm("pmpo", {"alpha": 1.0, "beta": 0.25}),
    "PMPO rejects": Arm("pmpo", {"alpha": 0.0, "beta": 1.2}),
    "random scores": Arm("pmpo", shuffled=True),
    "MPO": Arm("mpo"),
    "DPO": Arm("dpo"),
    "PPO": Arm(PPO_ALONE),
}
ALGOS = tuple(dict.fromkeys(arm.algo for arm in ARMS.values()))


@dataclass(frozen=True)
class Cell:
    """The arms of an algorithm on a task, as many training runs of each as there are seeds."""

    task: str
    algo: str
    seeds: tuple[int, ...]
    """Of the training runs of each arm."""

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Arm and seed of every run."""
        return [(name, seed) for name, arm in ARMS.items() if arm.algo == self.algo for seed in self.seeds]

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm with the settings of all runs, one a row."""
        arms = [ARMS[name] for name, _ in self.runs]
        base = ALGORITHMS[self.algo]
        changed = dict.fromkeys(name for arm in arms for name in arm.settings)
        columns = {
            name: torch.tensor([[arm.settings.get(name, base.settings[name])] for arm in arms]) for name in changed
        }
        shuffled = torch.tensor([arm.shuffled for arm in arms])
        return replace(base, settings={**base.settings, **columns}, shuffled=shuffled if shuffled.any() else None)

    @property
    def name(self) -> str:
        """A file name with a hash of everything that the results depend on."""
        facts: list[Any] = [self.task, self.seeds, FRAMES[self.task], EVALUATIONS, EPISODES]
        facts += [torch.__version__, mujoco.__version__]
        if self.algo == PPO_ALONE:
            facts.append({**asdict(PLANS[self.task]), "bonus": ""})
        else:
            facts += [asdict(arm) for arm in ARMS.values() if arm.algo == self.algo]
            facts += [asdict(ALGORITHMS[self.algo]), ControlSettings().model_dump()]
        return f"{self.task.partition('/')[2]}-{self.algo}-{hash_json(facts)[:12]}"


class Learners(nn.Module):
    """The runs of a cell: one stack, or for PPO one learner a seed."""

    def __init__(self, cell: Cell, task: Rules) -> None:
        super().__init__()
        seeds, frames = [seed for _, seed in cell.runs], FRAMES[cell.task]
        self._runs = len(seeds)
        self._every: Any = nn.ModuleList(
            [PPO(task, seed, frames) for seed in seeds]
            if cell.algo == PPO_ALONE
            else [OnlineControl(task, seeds, cell.algorithm, frames * self._runs)]
        )

    @property
    def frames(self) -> int:
        """Control steps so far, a run."""
        return sum(learner.frames for learner in self._every) // self._runs

    def advance(self) -> None:
        """Train all runs a little."""
        for learner in self._every:
            learner.advance()

    def policies(self) -> list[BehaviorPolicy]:
        """Return every run's policy as it is now."""
        if len(self._every) < self._runs:  # one stack
            return [self._every[0].policy(run) for run in range(self._runs)]
        return [learner.policy() for learner in self._every]


def train(cell: Cell, unfinished: Path) -> pl.DataFrame:
    """Train a cell, or resume it from `unfinished`; return one row an episode of every evaluation."""
    began = time.process_time()
    task = rules(cell.task)
    learners = Learners(cell, task)
    rows: list[dict[str, Any]] = []
    spent = 0.0
    if unfinished.exists():
        state, facts = load_tensors(unfinished)
        learners.load_state_dict(state)
        rows, spent = json.loads(facts["rows"]), float(facts["spent"])
    planned = FRAMES[cell.task]
    beginnings = [int(word >> np.uint64(32)) for word in random_words(EPISODES, "online control")]
    while True:
        next_evaluation = len({row["frames"] for row in rows}) * planned // EVALUATIONS
        if learners.frames >= next_evaluation:
            cpu = spent + time.process_time() - began
            for (arm, seed), policy in zip(cell.runs, learners.policies(), strict=True):
                described = {"task": cell.task, "arm": arm, "seed": seed, "frames": learners.frames}
                described["cpu"] = cpu / len(cell.runs)
                played = returns(policy, task, beginnings)
                rows += [{**described, "episode": i, "return": float(each)} for i, each in enumerate(played)]
            save_tensors(unfinished, learners.state_dict(), rows=json.dumps(rows), spent=repr(cpu))
        progress.report(f"{cell.algo} on {cell.task}", min(learners.frames, planned), planned)
        if learners.frames >= planned:
            return pl.DataFrame(rows, schema_overrides={"seed": pl.Int16, "episode": pl.Int16, "return": pl.Float32})
        learners.advance()


def cells(tasks: Sequence[str], algos: Sequence[str], seeds: int) -> list[Cell]:
    """Return the cells of tasks and algorithms; `UserError` for an unknown name."""
    for algo in algos:
        if algo not in ALGOS:
            raise unknown("algorithm", algo, ALGOS)
    chosen = [task_id(task) for task in tasks]
    for task in chosen:
        if task not in FRAMES:
            raise unknown("task of this benchmark", task, FRAMES)
    return [Cell(task, algo, tuple(range(seeds))) for task in chosen for algo in algos]


def main(
    task: Annotated[list[str] | None, typer.Option(help="Tasks; default: both.")] = None,
    algo: Annotated[list[str] | None, typer.Option(help=f"{', '.join(ALGOS)}; default: all.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Training runs of every arm on every task.")] = 3,
    output: Annotated[Path, typer.Option(help="Directory of results; cells found there are not run again.")] = RESULTS,
) -> None:
    """Compare learners that act and improve online."""
    raw, unfinished = output / "raw", output / "unfinished"
    with working():
        for cell in cells(task or list(FRAMES), algo or list(ALGOS), seeds):
            finished, begun = raw / f"{cell.name}.parquet", unfinished / f"{cell.name}.safetensors"
            if not finished.exists():
                shared.save(train(cell, begun), finished)
                begun.unlink()
        paths = [raw / f"{cell.name}.parquet" for cell in cells(list(FRAMES), list(ALGOS), seeds)]
        every = pl.concat([pl.read_parquet(path) for path in paths if path.exists()])
        floors = {each: float(random_returns(rules(each), list(range(100))).mean()) for each in every["task"].unique()}
        report.write(output, every, list(ARMS), floors)


if __name__ == "__main__":
    shared.script(main)
