"""Table and learning curves of the online comparison, from its raw returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from benchmarks.experiments import shared
from benchmarks.experiments.shared import BLACK, BLUE, GREEN, GREY, PURPLE, RED, SKY
from pmpo_offline.evaluation.statistics import Interval, interval

LINES = {  # colour, and dashes that tell lines apart in grey
    "PMPO both": (BLUE, "-"),
    "PMPO accepts": (GREEN, "-"),
    "PMPO rejects": (RED, "-"),
    "MPO": (PURPLE, (0, (6, 1.5))),
    "DPO": (SKY, (0, (3, 1, 1, 1))),
    "random scores": (GREY, ":"),
    "PPO": (BLACK, (0, (1, 1))),
}
STUDENT = {"dm_control/cartpole-swingup": 276.8, "dm_control/cheetah-run": 78.8}
"""PMPO in a public student report (DSL501), one seed each."""
LAST = 5
"""Evaluations at the end over which a run's final return is averaged."""


def write(output: Path, raw: pl.DataFrame, arms: Sequence[str], floors: Mapping[str, float]) -> None:
    """Write curves.png, scores.csv (a run's return at every evaluation) and README.md (findings.md and the table)."""
    runs = (
        raw.group_by("task", "arm", "seed", "frames", maintain_order=True)
        .agg(pl.col("return").mean().cast(pl.Float64), pl.col("cpu").first())
        .sort("task", pl.col("arm").replace_strict({arm: i for i, arm in enumerate(arms)}), "seed", "frames")
    )
    runs.with_columns(pl.col("return", "cpu").round(1)).write_csv(output / "scores.csv")
    curves(runs, floors).savefig(output / "curves.png", dpi=110)
    (output / "README.md").write_text(shared.with_findings(output, "Control online", markdown(runs, floors)))


def curves(runs: pl.DataFrame, floors: Mapping[str, float]) -> Figure:
    """Return one panel a task: mean over runs by control steps, with the interval."""
    tasks = list(dict.fromkeys(runs["task"]))
    picture = Figure(figsize=(6.2 * len(tasks), 4.9), layout="constrained")
    grid = picture.subplots(1, len(tasks), squeeze=False)[0]
    for axes, task in zip(grid, tasks, strict=True):
        here = runs.filter(pl.col("task") == task)
        for arm in dict.fromkeys(here["arm"]):
            mine = here.filter(pl.col("arm") == arm).sort("frames", "seed")
            frames = mine["frames"].unique(maintain_order=True).to_numpy()
            values = mine["return"].to_numpy().reshape(len(frames), -1)
            intervals = [_interval(each) for each in values]
            colour, dashes = LINES[arm]
            axes.plot(frames / 1e6, [i.estimate for i in intervals], color=colour, linestyle=dashes, lw=2, label=arm)
            low, high = [i.low for i in intervals], [i.high for i in intervals]
            axes.fill_between(frames / 1e6, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.axhline(STUDENT[task], color="black", linewidth=0.8, label="student report")
        axes.axhline(floors[task], color="black", linewidth=0.8, linestyle=":", label="random actions")
        axes.set_title(task, fontsize=12)
        axes.set_xlabel("million control steps, all environments of a run")
        axes.set_ylabel("return of the mean policy")
        axes.set_ylim(0, None)
        shared.bare(axes)
    shared.legend_below(picture, 5)
    return picture


def markdown(runs: pl.DataFrame, floors: Mapping[str, float]) -> str:
    """Return the table and what the numbers were made on."""
    tasks = list(dict.fromkeys(runs["task"]))
    header = [""]
    for task in tasks:
        header += [f"{task.partition('/')[2]}: last", "curve", "CPU-s a run"]
    lines = []
    for arm in dict.fromkeys(runs["arm"]):
        lines.append([arm])
        for task in tasks:
            mine = runs.filter(task=task, arm=arm)
            lines[-1] += ["—"] * 3 if mine.is_empty() else _scores(mine)
    for name, known in (("student report, PMPO", STUDENT), ("random actions", floors)):
        lines.append([name, *(cell for task in tasks for cell in (f"{known[task]:.0f}", "", ""))])
    counts = sorted(set(runs.group_by("task", "arm").agg(pl.col("seed").n_unique())["seed"]))
    seeds = " or ".join(map(str, counts))
    return "\n".join(
        [
            f"## Numbers\n\nReturns of 1,000 steps, {seeds} training runs an arm: means over runs with 95 % "
            f"intervals over runs. *Last*: mean of a run's last {LAST} evaluations; *curve*: of all of them. Every "
            "evaluation plays the policy's mean at every control step of ten episodes, the same for all runs; raw "
            "returns, one row an episode, are in `raw/*.parquet`, a run's means in `scores.csv`.\n",
            *shared.table(header, lines),
            "\n![Learning curves](curves.png)\n",
            shared.hardware("pmpo-offline", "torch", "mujoco", "dm_control"),
            "",
        ]
    )


def _scores(runs: pl.DataFrame) -> list[str]:
    """Return the last and the whole curve's mean return of an arm on a task, and its CPU seconds."""
    each = [mine.sort("frames")["return"].to_numpy() for _, mine in runs.group_by("seed", maintain_order=True)]
    last = _interval(np.array([curve[-LAST:].mean() for curve in each]))
    whole = _interval(np.array([curve.mean() for curve in each]))
    return [shared.spread(last, 0), shared.spread(whole, 0), f"{runs['cpu'].max():.0f}"]


def _interval(values: np.ndarray) -> Interval:
    return interval([values], lambda scores: scores.mean(-1), replicates=2000)
