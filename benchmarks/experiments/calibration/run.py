"""Compare the advantages that label control datasets with the truth, which the simulator knows.

    python -m benchmarks.experiments.calibration.run

Collects the medium behaviour of each task below; estimates the true advantage of some recorded steps, and of four
candidate actions at each of their states, by playing on from there; fits critics to the recording; and writes
the raw numbers, report.md and two pictures to benchmarks/results/calibration/. Tables found in its raw/ are reused.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import torch
import typer
from torch import Tensor

from benchmarks.experiments import shared
from benchmarks.experiments.calibration import report, truth, use
from benchmarks.experiments.calibration.truth import Acting, Horizon
from pmpo_offline import data
from pmpo_offline.build import build_dataset
from pmpo_offline.cli.console import working
from pmpo_offline.data import Dataset, Rows, columns
from pmpo_offline.policies.behavior import BehaviorPolicy
from pmpo_offline.runtime import progress
from pmpo_offline.tasks.control import rules
from pmpo_offline.tasks.control.task import weights_file
from pmpo_offline.training import CriticEstimates, CriticSettings, fit_critic
from pmpo_offline.training.critics.cross_fitted import returns_to_go

STATES = {  # how many; some tasks are slow to simulate
    "dm_control/cartpole-swingup": 256,
    "dm_control/cheetah-run": 256,
    "dm_control/finger-spin": 128,
    "mujoco/hopper": 48,
}
DISCOUNT, CANDIDATES = 0.99, 4
HORIZON = Horizon(rollouts=64, steps=200, discount=DISCOUNT, seed=0)
"""0.99 ** 200 is 0.13, and by then the effect of one action is lost in the noise of all others."""
TRACES: dict[str, tuple[float, ...]] = {"network": (1.0, 0.97, 0.95, 0.9, 0.8, 0.5), "first_order": (1.0, 0.9)}
"""The traces, by kind of action value."""
FITTED = {"network": "Q - V", "first_order": "first order"}
"""Names of their advantages in the tables."""
CRITIC = {"discount": DISCOUNT, "sweeps": 2, "batch": 256, "learning_rate": 3e-3}  # as control datasets declare it
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


def main(
    out: Annotated[Path, typer.Option(help="Where to write.")] = shared.RESULTS / "calibration",
    home: Annotated[Path | None, typer.Option(help="Where datasets are.")] = None,
) -> None:
    """Estimate the truth, fit critics, and write the report."""
    raw = out / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    with working():
        for task, states in STATES.items():
            name = task.replace("/", "-")
            dataset = recording(task, raw / f"{name}.toml", home)
            known = raw / f"{name}-truth.parquet"
            if not known.exists():
                with progress.stage(task):
                    shared.save(estimate(task, dataset, states), known)
            files = {each: raw / f"{name}-{each}.parquet" for each in (*TRACES, "use")}
            if not all(path.exists() for path in files.values()):
                for each, table in judged(task, dataset, pl.read_parquet(known)).items():
                    shared.save(table, files[each])
    report.write(out)
    typer.echo(f"wrote {out}")


def recording(task: str, recipe: Path, home: Path | None) -> Dataset:
    """Build the dataset of a task's medium behaviour, labelled by returns."""
    id = f"calibration/{task.split('/')[1]}-v0"
    recipe.write_text(RECIPE.format(id=id, task=task))
    try:
        return build_dataset(str(recipe), home=home or data.home(), overwrite=True)
    finally:
        recipe.unlink()


def estimate(task: str, dataset: Dataset, states: int) -> pl.DataFrame:
    """Return a row a state and arm: the recorded action is arm 0, then the candidates, last the behaviour itself."""
    known, policy = rules(task), BehaviorPolicy.load(weights_file(task, "medium"))
    acting = Acting(policy, np.exp(policy.log_std.astype(np.float64)))
    rng = np.random.default_rng(5)
    row = np.sort(rng.choice(len(dataset), states, replace=False))
    seen = columns.matrix(dataset.table, "observation")[row].astype(np.float64).repeat(CANDIDATES, axis=0)
    drawn = acting.action(seen, rng.standard_normal((len(seen), known.action_dim)))
    recorded = columns.matrix(dataset.table, "action")[row].astype(np.float64)
    action = np.concatenate([recorded[:, None], drawn.reshape(states, CANDIDATES, -1)], axis=1)
    found = truth.returns(known, acting, truth.restore(known, dataset, row), action, HORIZON)
    return truth_table(row, action, found)


def truth_table(row: np.ndarray, action: np.ndarray, found: np.ndarray) -> pl.DataFrame:
    """Return rows (S,), actions (S, K, A) and returns (S, K + 1, R / 2) as a table; the last arm has no action."""
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


def judged(task: str, dataset: Dataset, known: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return critics' estimates at the same states, a table a kind of Q, and returns of clones of accepted steps."""
    rows = Rows.of(dataset)
    every, own = torch.arange(len(rows)), rows.action.unsqueeze(1)
    accepted: dict[tuple[str, float], Tensor] = {("all steps", math.nan): torch.ones(len(rows), dtype=torch.bool)}
    tables = {}
    for kind, traces in TRACES.items():
        parts = []
        for trace in traces:
            began = time.process_time()
            if kind == "first_order" or not parts:
                settings = CriticSettings.model_validate({**CRITIC, "trace": trace, "action_value": kind})
                judgement = fit_critic(rows, settings, 0)
                gained = judgement.action_value(every, own).squeeze(1) - judgement.value
                accepted[FITTED[kind], trace] = gained > 0
                score = judgement.advantage
            else:
                # V does not depend on the trace, so one fit serves all.
                score = returns_to_go(rows, DISCOUNT, following(rows, judgement), trace) - judgement.value
            if kind == "network":
                accepted["recorded", trace] = score > 0
            parts.append(
                predicted(judgement, score, known).with_columns(trace=trace, seconds=time.process_time() - began)
            )
        tables[kind] = pl.concat(parts)
    progress.report(f"{task}: clone accepted steps", 0, 1)
    return {**tables, "use": use.clones(rules(task), rows, accepted)}


def predicted(judgement: CriticEstimates, score: Tensor, known: pl.DataFrame) -> pl.DataFrame:
    """Return a row a state and action of the truth: V, the recorded step's return less V, and Q - V of the action."""
    arms = int(known["arm"].max())  # type: ignore[arg-type]
    row = torch.from_numpy(known["row"].unique(maintain_order=True).to_numpy().copy())
    action = torch.from_numpy(known["action"].to_numpy().copy()).view(len(row), arms + 1, -1)[:, :-1]
    gained = judgement.action_value(row, action) - judgement.value[row].unsqueeze(1)
    return pl.DataFrame(
        {
            "row": row.repeat_interleave(arms).numpy(),
            "arm": np.tile(np.arange(arms), len(row)),
            "value": judgement.value[row].repeat_interleave(arms).numpy(),
            "advantage": gained.flatten().numpy(),
            "score": score[row].repeat_interleave(arms).numpy(),
        }
    ).with_columns(explained=judgement.explained)


def following(rows: Rows, whole: CriticEstimates) -> Tensor:
    """Return V of each step's next state, (N,): the next step's, or what a cut episode's last return was made with."""
    after = (whole.returns - rows.reward) / DISCOUNT
    return torch.where(rows.terminated | rows.truncated, after, whole.value.roll(-1))


if __name__ == "__main__":
    shared.script(main)
