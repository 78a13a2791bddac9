"""PMPO, MPO and DPO on bandits: four samples a step from a slowly moving reference, the better two against the others.

python -m benchmarks.experiments.bandits.run            everything under benchmarks/results/bandits
python -m benchmarks.experiments.bandits.run --tune     choose strengths and learning rates first, on separate seeds
python -m benchmarks.experiments.bandits.run --seeds 5 --output elsewhere

Cells (objective × dimension) whose raw results are in the output are not run again.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
import torch
import typer
from torch import Tensor

from benchmarks.experiments import shared
from benchmarks.experiments.bandits import report
from benchmarks.experiments.bandits.gaussian import GaussianPolicy
from pmpo_offline.cli.console import working
from pmpo_offline.objectives import stability
from pmpo_offline.online.improver import Algorithm, Improver, OnlineSettings
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.hashing import hash_json
from pmpo_offline.tasks.bandit import FUNCTIONS, Function

RESULTS = shared.RESULTS / "bandits"
PROBLEMS = {name: FUNCTIONS[name] for name in ("sphere", "rosenbrock", "schwefel")}
"""What the committed results were trained on, whatever other functions the package has."""
DIMENSIONS = (2, 10, 50)
STEPS, RECORDS = 3000, 60
"""Updates of a run, and the number of steps at which its regret is recorded."""
START = 0.5
"""A run starts at a mean drawn by its seed, uniform within ±START, with this deviation in every dimension."""
DRAWN = 64
"""Samples of the policy behind its sampled regret; the same for all."""
LEARNING_RATES = (0.003, 0.01, 0.03)
TUNING_SEEDS = range(1000, 1005)
BOUND_STARTS = 5
"""Starts at which the bound is computed."""


@dataclass(frozen=True)
class Arm:
    """One learner: its objective, what is fixed, and the one strength that is tuned beside the learning rate."""

    name: str
    objective: str
    strength: str
    grid: tuple[float, ...]
    fixed: dict[str, Any] = field(default_factory=dict)
    paired: int = 2
    shuffled: bool = False

    @property
    def stack(self) -> str:
        """Arms of one stack are trained side by side."""
        return f"{self.objective}-{self.paired}" if self.objective == "dpo" else self.objective


FORWARD = {"divergence": "forward"}
ARMS = (
    Arm("PMPO accepts", "pmpo", "beta", (0.0, 0.1, 0.25, 0.5, 1.0), {"alpha": 1.0, **FORWARD}),
    Arm("PMPO rejects", "pmpo", "beta", (0.4, 0.5, 0.6, 0.8, 1.0), {"alpha": 0.0, **FORWARD}),
    Arm("PMPO both", "pmpo", "beta", (0.025, 0.05, 0.1, 0.2, 0.5), {"alpha": 0.5, **FORWARD}),
    Arm("MPO", "mpo", "epsilon", (0.1, 0.3, 0.6, 1.0, 1.3)),
    Arm("DPO best/worst", "dpo", "beta", (0.1, 0.3, 1.0, 3.0, 10.0), paired=1),
    Arm("DPO all pairs", "dpo", "beta", (0.1, 0.3, 1.0, 3.0, 10.0), paired=2),
)
CONTROLLED = "PMPO both"
CONTROL = "random labels"
"""The control: `CONTROLLED` with the same settings, given the scores in random order."""


@dataclass(frozen=True)
class Run:
    """One training run: on which function, by which arm with which settings, from which seed."""

    function: str
    arm: Arm
    strength: float
    learning_rate: float
    seed: int


@dataclass(frozen=True)
class Cell:
    """Runs of one stack in one dimension; they are trained as one batch."""

    stack: str
    dimensions: int
    runs: tuple[Run, ...]

    @property
    def path(self) -> str:
        """A file name with a hash of everything that the results depend on."""
        digest = hash_json([asdict(self), STEPS, RECORDS, START, DRAWN, torch.__version__])
        return f"{self.stack}-{self.dimensions}-{digest[:12]}.parquet"


def start(seed: int, dimensions: int) -> Tensor:
    """Return the initial mean of all runs of a seed, (dimensions,), the same for every arm and function."""
    uniform = torch.rand(dimensions, generator=torch.Generator().manual_seed(seed))
    return START * (2 * uniform - 1)


def train(cell: Cell) -> pl.DataFrame:
    """Train a cell; return one row a run and recorded step."""
    runs, dimensions = cell.runs, cell.dimensions
    arm = runs[0].arm
    policy = GaussianPolicy(
        torch.stack([start(run.seed, dimensions) for run in runs]), torch.full((len(runs), dimensions), START)
    )

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32).unsqueeze(1)

    settings: dict[str, Any] = {arm.strength: column([run.strength for run in runs])}
    for name, value in arm.fixed.items():
        settings[name] = value if isinstance(value, str) else column([run.arm.fixed[name] for run in runs])
    shuffled = torch.tensor([run.arm.shuffled for run in runs])
    algorithm = Algorithm(
        arm.objective,
        settings,
        learning_rate=column([run.learning_rate for run in runs]),
        shuffled=shuffled if shuffled.any() else None,
    )
    improver = Improver(policy, algorithm, OnlineSettings(paired=arm.paired), [run.seed for run in runs])
    # Runs of one function are adjacent, so each function is called once.
    blocks = [(PROBLEMS[name], len(list(group))) for name, group in itertools.groupby(runs, lambda run: run.function)]

    def regret(action: Tensor) -> Tensor:
        parts = action.split([size for _, size in blocks])
        return torch.cat([function.regret(part) for (function, _), part in zip(blocks, parts, strict=True)])

    observation = torch.zeros(len(runs), 1, 1)
    normal = torch.randn(DRAWN, dimensions, generator=torch.Generator().manual_seed(0))
    records: list[list[np.ndarray]] = []
    steps = [0]

    @torch.no_grad()
    def record() -> None:
        deviation = policy.log_std.exp()
        drawn = policy.mean[:, None] + deviation[:, None] * normal
        values = regret(policy.mean), regret(drawn).mean(-1), policy.log_std.mean(-1).exp()
        records.append([value.numpy() for value in values])

    record()
    for step in range(1, STEPS + 1):
        improver.update(observation, lambda _, action: -regret(action))
        if step % (STEPS // RECORDS) == 0:
            steps.append(step)
            record()
    regrets = np.array(records, np.float32)  # (records, 3, runs)
    described = pl.DataFrame(
        {
            "function": [run.function for run in runs],
            "dimensions": [dimensions] * len(runs),
            "arm": [run.arm.name for run in runs],
            "strength": [run.strength for run in runs],
            "learning_rate": [run.learning_rate for run in runs],
            "seed": [run.seed for run in runs],
        },
        schema_overrides={"dimensions": pl.Int16, "seed": pl.Int16},
    )
    parts = [
        described.with_columns(
            step=pl.lit(step, pl.Int16),
            regret_of_mean=pl.Series(mean),
            regret_of_samples=pl.Series(samples),
            deviation=pl.Series(deviation),
        )
        for step, (mean, samples, deviation) in zip(steps, regrets, strict=True)
    ]
    return pl.concat(parts)


def execute(cells: Sequence[Cell], folder: Path, workers: int, stage: str) -> tuple[pl.DataFrame, float]:
    """Train the cells that `folder` lacks; return all their rows, and the CPU seconds that this took."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [cell for cell in cells if not (folder / cell.path).exists()]
    # The longest first, so that no process ends long after the others.
    missing.sort(key=lambda cell: (cell.stack == "mpo", cell.dimensions * len(cell.runs)), reverse=True)
    progress.report(stage, len(cells) - len(missing), len(cells))
    spent = 0.0
    # Fresh interpreters, because threads of torch do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, torch.set_num_threads, (1,)) as pool:
        tasks = [pool.submit(_store, cell, folder / cell.path) for cell in missing]
        for done, task in enumerate(as_completed(tasks), len(cells) - len(missing) + 1):
            spent += task.result()
            progress.report(stage, done, len(cells))
    return pl.concat([pl.read_parquet(folder / cell.path) for cell in cells]), spent


def _store(cell: Cell, path: Path) -> float:
    start = time.process_time()
    shared.save(train(cell), path)
    return time.process_time() - start


def grid_cells() -> list[Cell]:
    """Every strength and learning rate of every arm on the tuning seeds."""
    return _cells(
        [(arm, strength, rate) for arm in ARMS for strength in arm.grid for rate in LEARNING_RATES], TUNING_SEEDS
    )


def chosen_cells(tuned: dict[str, Any], seeds: int) -> list[Cell]:
    """Every arm with the setting that was chosen for it, and the control."""
    chosen = [(arm, tuned[arm.name]["strength"], tuned[arm.name]["learning_rate"]) for arm in ARMS]
    arm, strength, rate = next(each for each in chosen if each[0].name == CONTROLLED)
    control = Arm(CONTROL, arm.objective, arm.strength, arm.grid, arm.fixed, shuffled=True)
    return _cells([*chosen, (control, strength, rate)], range(seeds))


def _cells(settings: Sequence[tuple[Arm, float, float]], seeds: Sequence[int]) -> list[Cell]:
    cells = []
    for stack in dict.fromkeys(arm.stack for arm, _, _ in settings):
        runs = tuple(
            Run(function, arm, strength, rate, seed)
            for function in PROBLEMS
            for arm, strength, rate in settings
            if arm.stack == stack
            for seed in seeds
        )
        cells += [Cell(stack, dimensions, runs) for dimensions in DIMENSIONS]
    return cells


def choose(raw: pl.DataFrame) -> dict[str, Any]:
    """Return the best setting and the whole grid of each arm, by log10 regret averaged over time and problems."""
    score = report.log_regret("regret_of_samples")
    parts = [score.filter(pl.col("dimensions") == each).mean().alias(f"dimensions_{each}") for each in DIMENSIONS]
    grid = raw.group_by("arm", "strength", "learning_rate").agg(score.mean().alias("score"), *parts)
    tuned = {}
    for arm in ARMS:
        rows = grid.filter(pl.col("arm") == arm.name).drop("arm").sort("score", "strength", "learning_rate").to_dicts()
        best = {name: rows[0][name] for name in ("strength", "learning_rate")}
        tuned[arm.name] = {"name": arm.strength, **best, "grid": rows}
    return tuned


def bounds(tuned: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the range of the bound on β over a few starts, one row a problem, for the arms with rejects."""
    rows: list[dict[str, Any]] = []
    for (name, function), dimensions in itertools.product(PROBLEMS.items(), DIMENSIONS):
        rows.append({"function": name, "dimensions": dimensions})
        for arm in ("PMPO rejects", "PMPO both"):
            alpha = next(each.fixed["alpha"] for each in ARMS if each.name == arm)
            least = [_bound(function, start(seed, dimensions), alpha) for seed in range(BOUND_STARTS)]
            rows[-1][arm] = {"low": min(least), "high": max(least), "chosen": tuned[arm]["strength"]}
    return rows


def _bound(function: Function, mean: Tensor, alpha: float) -> float:
    normal = torch.randn(10_000, 4, len(mean), generator=torch.Generator().manual_seed(0))
    action = mean + START * normal
    order = function.reward(action).argsort(-1).unsqueeze(-1).expand_as(action)
    rejected, accepted = action.gather(1, order).split(2, dim=1)
    groups = [each.flatten(0, 1) for each in (accepted, rejected, action)]
    return float(stability.gaussian_beta_min(*groups, alpha=alpha, normalize="joint"))


def main(
    seeds: Annotated[int, typer.Option(min=1, help="Training runs of every arm on every problem.")] = 20,
    output: Annotated[Path, typer.Option(help="Directory of results; cells found there are not run again.")] = RESULTS,
    tune: Annotated[bool, typer.Option("--tune", help="Choose strengths and learning rates again.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
) -> None:
    """Compare learners of ranked samples on Sphere, Rosenbrock and Schwefel."""
    chosen = (output if tune else RESULTS) / "tuning.json"
    with working():
        if tune:
            raw, _ = execute(grid_cells(), output / "tuning", workers, "tune")
            chosen.write_text(json.dumps(choose(raw), indent=1) + "\n")
        elif not chosen.exists():
            raise UserError(f"{chosen} is missing: run with --tune first")
        tuned = json.loads(chosen.read_text())
        began, load = time.monotonic(), os.getloadavg()[0]
        cells = chosen_cells(tuned, seeds)
        reused = any((output / "raw" / cell.path).exists() for cell in cells)
        raw, spent = execute(cells, output / "raw", workers, "bandits")
    took = None if reused else {"wall": time.monotonic() - began, "cpu": spent, "workers": workers, "load": load}
    report.Report(raw, tuned, bounds(tuned), [*(arm.name for arm in ARMS), CONTROL]).write(output, took)


if __name__ == "__main__":
    shared.script(main)
