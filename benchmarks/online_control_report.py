"""What the raw returns of benchmarks/online_control.py say: a table, learning curves, what they were measured on."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from pmpo_offline.evaluation.statistics import Interval, bootstrap

# Okabe and Ito's colours, as in the bandits' pictures; dashes tell lines apart in grey.
LINES = {
    "PMPO both": ("#0072B2", "-"),
    "PMPO accepts": ("#009E73", "-"),
    "PMPO rejects": ("#D55E00", "-"),
    "MPO": ("#CC79A7", (0, (6, 1.5))),
    "DPO": ("#56B4E9", (0, (3, 1, 1, 1))),
    "random scores": ("#777777", ":"),
    "PPO": ("#222222", (0, (1, 1))),
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
    findings = output / "findings.md"
    text = findings.read_text() if findings.exists() else "# Control online\n"
    (output / "README.md").write_text(text.rstrip() + "\n\n" + markdown(runs, floors))


def curves(runs: pl.DataFrame, floors: Mapping[str, float]) -> Figure:
    """Return one panel a task: mean over runs by control steps, with the interval."""
    tasks = _tasks(runs)
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
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    handles = {label: handle for axes in grid for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    picture.legend(handles.values(), handles, loc="outside lower center", ncols=5, frameon=False, handlelength=3)
    return picture


def markdown(runs: pl.DataFrame, floors: Mapping[str, float]) -> str:
    """Return the table and where the numbers come from."""
    tasks = _tasks(runs)
    head = "".join(f" {task.partition('/')[2]}: last | curve | CPU-s a run |" for task in tasks)
    lines = [f"| |{head}", "|---|" + "---|---|---|" * len(tasks)]
    scores = {
        (task, arm): {"last": _last(mine), "curve": _curve(mine), "cpu": mine["cpu"].max()}
        for (task, arm), mine in runs.group_by("task", "arm", maintain_order=True)
    }
    for arm in dict.fromkeys(arm for _, arm in scores):
        cells = []
        for task in tasks:
            score = scores.get((task, arm))
            cells += (
                ["—", "—", "—"]
                if score is None
                else [_short(score["last"]), _short(score["curve"]), f"{score['cpu']:.0f}"]
            )
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    for name, known in (("student report, PMPO", STUDENT), ("random actions", floors)):
        lines.append(f"| {name} | " + " | ".join(f"{known[task]:.0f} | | " for task in tasks) + "|")
    counts = sorted(set(runs.group_by("task", "arm").agg(pl.col("seed").n_unique())["seed"]))
    seeds = " or ".join(map(str, counts))
    return "\n".join(
        [
            f"## Numbers\n\nReturns of 1,000 steps, {seeds} training runs an arm: means over runs with 95 % bootstrap "
            f"intervals over runs. *Last*: mean of a run's last {LAST} evaluations; *curve*: of all of them. Every "
            "evaluation plays the policy's mean at every control step of ten episodes, the same for all runs; raw "
            "returns, one row an episode, are in `raw/*.parquet`, a run's means in `scores.csv`.\n",
            *lines,
            "\n![Learning curves](curves.png)\n",
            _made(),
            "",
        ]
    )


def _tasks(runs: pl.DataFrame) -> list[str]:
    return list(dict.fromkeys(runs["task"]))


def _per_run(runs: pl.DataFrame) -> list[np.ndarray]:
    return [mine.sort("frames")["return"].to_numpy() for _, mine in runs.group_by("seed", maintain_order=True)]


def _last(runs: pl.DataFrame) -> Interval:
    return _interval(np.array([each[-LAST:].mean() for each in _per_run(runs)]))


def _curve(runs: pl.DataFrame) -> Interval:
    return _interval(np.array([each.mean() for each in _per_run(runs)]))


def _interval(values: np.ndarray) -> Interval:
    return bootstrap([values], lambda scores: scores.mean(-1), replicates=2000)


def _short(interval: Interval) -> str:
    return f"{interval.estimate:.0f} ({interval.low:.0f} – {interval.high:.0f})"


def _made() -> str:
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    versions = ", ".join(f"{name} {version(name)}" for name in ("pmpo-offline", "torch", "mujoco", "dm_control"))
    processor = models[0] if models else platform.processor()
    python = platform.python_version()
    return f"Made on one thread of {os.cpu_count()} cores of an {processor} with {versions}, python {python}."
