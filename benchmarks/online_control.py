"""PMPO, MPO, DPO and PPO learning control online: the paper's control suite, on two of its tasks.

python benchmarks/online_control.py                what is committed under benchmarks/results/online
python benchmarks/online_control.py --task cheetah-run --algo mpo --output elsewhere

A cell is an algorithm on a task, all its arms and seeds trained as one stack. Cells that stand in the output are not
run again, and one that was interrupted goes on where it was.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import mujoco
import numpy as np
import online_control_report
import polars as pl
import torch
import typer
from torch import Tensor

from pmpo_offline.cli.console import working
from pmpo_offline.online.behavior import random_returns, returns
from pmpo_offline.online.behavior_targets import task_id
from pmpo_offline.online.online_control import OnlineControl
from pmpo_offline.online.online_settings import ALGORITHMS, Algorithm, ControlSettings
from pmpo_offline.online.ppo import PPO
from pmpo_offline.online.ppo_config import PLANS
from pmpo_offline.policies.behavior import BehaviorPolicy
from pmpo_offline.runtime.errors import PmpoOfflineError, unknown
from pmpo_offline.runtime.hashing import hash_json
from pmpo_offline.runtime.random_words import random_words
from pmpo_offline.tasks.control import Rules, rules
from pmpo_offline.training import checkpoint

RESULTS = Path(__file__).parent / "results" / "online"
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
        """A name that changes with whatever the results depend on."""
        told: list[Any] = [self.task, self.seeds, FRAMES[self.task], EVALUATIONS, EPISODES]
        told += [torch.__version__, mujoco.__version__]
        if self.algo == PPO_ALONE:
            told.append({**asdict(PLANS[self.task]), "bonus": ""})
        else:
            told += [asdict(arm) for arm in ARMS.values() if arm.algo == self.algo]
            told += [asdict(ALGORITHMS[self.algo]), ControlSettings().model_dump()]
        digest = hash_json(told)
        return f"{self.task.partition('/')[2]}-{self.algo}-{digest[:12]}"


class Learners:
    """The runs of a cell, as the loop below sees them: one stack, or for PPO one learner a seed."""

    def __init__(self, cell: Cell, task: Rules) -> None:
        seeds, frames = [seed for _, seed in cell.runs], FRAMES[cell.task]
        self._runs = len(seeds)
        self._stack: OnlineControl | None = None
        if cell.algo != PPO_ALONE:
            self._stack = OnlineControl(task, seeds, cell.algorithm, frames * self._runs)
            self._every: list[Any] = [self._stack]
        else:
            self._every = [PPO(task, seed, frames) for seed in seeds]

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
        if self._stack is not None:
            return [self._stack.policy(run) for run in range(self._runs)]
        return [learner.policy() for learner in self._every]

    def state(self) -> dict[str, Tensor]:
        """Return all that changes."""
        return {f"{i}/{name}": each for i, one in enumerate(self._every) for name, each in one.state().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` returned."""
        for i, learner in enumerate(self._every):
            prefix = f"{i}/"
            learner.restore({n.removeprefix(prefix): each for n, each in state.items() if n.startswith(prefix)})


def train(cell: Cell, unfinished: Path, tell: Callable[[int, int], None]) -> pl.DataFrame:
    """Train a cell, or go on with it; return one row an episode of every evaluation."""
    began = time.process_time()
    task = rules(cell.task)
    learners = Learners(cell, task)
    rows: list[dict[str, Any]] = []
    spent = 0.0
    if unfinished.exists():
        state, facts = checkpoint.load(unfinished)
        learners.restore(state)
        rows, spent = json.loads(facts["rows"]), float(facts["spent"])
    planned = FRAMES[cell.task]
    beginnings = [int(word >> np.uint64(32)) for word in random_words(EPISODES, "online control")]
    while True:
        due = len({row["frames"] for row in rows}) * planned // EVALUATIONS
        if learners.frames >= due:
            cpu = spent + time.process_time() - began
            for (arm, seed), policy in zip(cell.runs, learners.policies(), strict=True):
                described = {"task": cell.task, "arm": arm, "seed": seed, "frames": learners.frames}
                described["cpu"] = cpu / len(cell.runs)
                played = returns(policy, task, beginnings)
                rows += [{**described, "episode": i, "return": float(each)} for i, each in enumerate(played)]
            checkpoint.save(unfinished, learners.state(), rows=json.dumps(rows), spent=repr(cpu))
        tell(min(learners.frames, planned), planned)
        if learners.frames >= planned:
            return pl.DataFrame(rows, schema_overrides={"seed": pl.Int16, "episode": pl.Int16, "return": pl.Float32})
        learners.advance()


def cells(tasks: Sequence[str], algos: Sequence[str], seeds: int) -> list[Cell]:
    """Return every cell asked for; `UserError` for a name that is none."""
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
    output: Annotated[Path, typer.Option(help="Where results go, and where finished cells are looked for.")] = RESULTS,
) -> None:
    """Compare learners that act, judge and improve online."""
    raw, unfinished = output / "raw", output / "unfinished"
    with working() as progress:
        for cell in cells(task or list(FRAMES), algo or list(ALGOS), seeds):
            finished, begun = raw / f"{cell.name}.parquet", unfinished / f"{cell.name}.safetensors"
            if not finished.exists():
                stage = f"{cell.algo} on {cell.task}"
                frame = train(cell, begun, lambda done, total, stage=stage: progress(stage, done, total))
                raw.mkdir(parents=True, exist_ok=True)
                frame.write_parquet(finished.with_suffix(".tmp"), compression="zstd")
                finished.with_suffix(".tmp").replace(finished)
                begun.unlink()
        standing = [raw / f"{cell.name}.parquet" for cell in cells(list(FRAMES), list(ALGOS), seeds)]
        every = pl.concat([pl.read_parquet(path) for path in standing if path.exists()])
        floors = {each: float(random_returns(rules(each), list(range(100))).mean()) for each in every["task"].unique()}
        online_control_report.write(output, every, list(ARMS), floors)


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        typer.run(main)
    except PmpoOfflineError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
