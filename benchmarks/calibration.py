"""Are the advantages that label control datasets right? Critics beside the truth, which the simulator tells.

    python benchmarks/calibration.py

Collects the medium behaviour of each task below; estimates the true advantage of some recorded steps, and of four
candidate actions at each of their states, by playing on from there; lets critics judge the recording; and writes
the raw numbers, report.md and two pictures to benchmarks/results/calibration/. What stands in its raw/ is kept.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import calibration_report
import calibration_truth
import numpy as np
import polars as pl
import torch
import typer
from torch import Tensor

from pmpo_offline import data
from pmpo_offline.build import build_dataset
from pmpo_offline.cli.console import working
from pmpo_offline.data import Dataset, Rows, columns
from pmpo_offline.errors import PmpoOfflineError
from pmpo_offline.policies.behavior import BehaviorPolicy
from pmpo_offline.tasks.control import rules
from pmpo_offline.tasks.control.recording import weights_file
from pmpo_offline.training import CriticSettings, Judgement, judge
from pmpo_offline.training.returns import returns_to_go

STATES = {  # how many; some tasks are slow to simulate
    "dm_control/cartpole-swingup": 256,
    "dm_control/cheetah-run": 256,
    "mujoco/hopper": 128,
}
Advantage = Literal["recorded", "fitted"]
DISCOUNT, CANDIDATES, ROLLOUTS = 0.99, 4, 64
HORIZON = 200  # steps; 0.99 ** 200 is 0.13, and what an action changed is mixed up with the noise of all others by then
TRACES: dict[Advantage, tuple[float, ...]] = {"recorded": (1.0, 0.97, 0.95, 0.9, 0.8, 0.5), "fitted": (1.0, 0.9)}
RECIPE = """
id = "{id}"
kind = "transitions"
task = "{task}"
title = "The medium behaviour of {task}"
licence = "CC-BY-4.0"
episodes = 200
label = "return"
[[behavior]]
name = "medium"
policy = "medium"
weight = 1
"""
Progress = Callable[[str, int, int], None]


def main(
    out: Annotated[Path, typer.Option(help="Where to write.")] = Path(__file__).parent / "results" / "calibration",
    home: Annotated[Path | None, typer.Option(help="Where datasets are.")] = None,
) -> None:
    """Estimate, judge and report."""
    torch.set_num_threads(1)
    raw = out / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    with working() as progress:
        for task, states in STATES.items():
            name = task.replace("/", "-")
            dataset = recording(task, raw / f"{name}.toml", home, progress)
            truth = kept(raw / f"{name}-truth.parquet", lambda d=dataset, t=task, s=states: estimate(t, d, s, progress))
            for advantage, traces in TRACES.items():
                path = raw / f"{name}-{advantage}.parquet"
                kept(path, lambda d=dataset, a=advantage, s=traces, t=truth: predict(d, a, s, t, progress))
    calibration_report.write(out)
    typer.echo(f"wrote {out}")


def recording(task: str, recipe: Path, home: Path | None, progress: Progress) -> Dataset:
    """Build the dataset of a task's medium behaviour, which no critic has judged."""
    id = f"calibration/{task.split('/')[1]}-v0"
    recipe.write_text(RECIPE.format(id=id, task=task))
    try:
        return build_dataset(str(recipe), home=home or data.home(), progress=progress)
    finally:
        recipe.unlink()


def kept(path: Path, make: Callable[[], pl.DataFrame]) -> pl.DataFrame:
    """Return the table at `path`, which is made if it does not stand."""
    if not path.exists():
        make().write_parquet(path)
    return pl.read_parquet(path)


def estimate(task: str, dataset: Dataset, states: int, progress: Progress) -> pl.DataFrame:
    """One row a state and arm: the recorded action is arm 0, then the candidates, last the behaviour itself."""
    known, policy = rules(task), BehaviorPolicy.load(weights_file(task, "medium"))
    acting = calibration_truth.Acting(policy, np.exp(policy.log_std.astype(np.float64)))
    rng = np.random.default_rng(5)
    row = np.sort(rng.choice(len(dataset), states, replace=False))
    seen = columns.matrix(dataset.table, "observation")[row].astype(np.float64).repeat(CANDIDATES, axis=0)
    drawn = acting.action(seen, rng.standard_normal((len(seen), known.action_dim)))
    recorded = columns.matrix(dataset.table, "action")[row].astype(np.float64)
    action = np.concatenate([recorded[:, None], drawn.reshape(states, CANDIDATES, -1)], axis=1)
    found = calibration_truth.returns(
        known, acting, calibration_truth.restore(known, dataset, row), action, ROLLOUTS, HORIZON, DISCOUNT, 0,
        lambda done, total: progress(f"{task}: play on", done, total),
    )  # fmt: skip
    return truth_table(row, action, found)


def truth_table(row: np.ndarray, action: np.ndarray, found: np.ndarray) -> pl.DataFrame:
    """Rows (S,), actions (S, K, A) and returns (S, K + 1, R / 2) as a table; the last arm has no action of its own."""
    states, arms, _ = found.shape
    own = np.full((states, 1, action.shape[2]), np.nan)
    return pl.DataFrame(
        {
            "row": row.repeat(arms),
            "arm": np.tile(np.arange(arms), states),
            "action": np.concatenate([action, own], axis=1).astype(np.float32).reshape(states * arms, -1),
            "returns": found.astype(np.float32).reshape(states * arms, -1),
        }
    )


def predict(
    dataset: Dataset, advantage: Advantage, traces: Sequence[float], truth: pl.DataFrame, progress: Progress
) -> pl.DataFrame:
    """What critics say of the same states, by trace: V, the recorded step's score and Q - V of every action."""
    rows = Rows.of(dataset)
    arms = int(truth["arm"].max())  # type: ignore[arg-type]
    row = torch.from_numpy(truth["row"].unique(maintain_order=True).to_numpy().copy())
    action = torch.from_numpy(truth["action"].to_numpy().copy()).view(len(row), arms + 1, -1)[:, :-1]
    found = []
    for trace in traces:
        began = time.process_time()
        if advantage == "fitted" or trace == traces[0]:
            settings = CriticSettings(discount=DISCOUNT, trace=trace, advantage=advantage)
            judgement = judge(rows, settings, 0, progress)
            score, value = judgement.advantage, judgement.value
            gained = judgement.action_value(row, action) - value[row].unsqueeze(1)
        else:
            score = returns_to_go(rows, DISCOUNT, following(rows, judgement), trace) - value
        columns = {
            "row": row.repeat_interleave(arms).numpy(),
            "arm": np.tile(np.arange(arms), len(row)),
            "value": value[row].repeat_interleave(arms).numpy(),
            "advantage": gained.flatten().numpy(),
            "score": score[row].repeat_interleave(arms).numpy(),
        }
        seconds = time.process_time() - began
        found.append(pl.DataFrame(columns).with_columns(trace=trace, explained=judgement.explained, seconds=seconds))
    return pl.concat(found)


def following(rows: Rows, whole: Judgement) -> Tensor:
    """V of each step's next state, (N,): the next step's, or what a cut episode's last return was made with."""
    after = (whole.returns - rows.reward) / DISCOUNT
    return torch.where(rows.terminated | rows.truncated, after, whole.value.roll(-1))


if __name__ == "__main__":
    try:
        typer.run(main)
    except PmpoOfflineError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
