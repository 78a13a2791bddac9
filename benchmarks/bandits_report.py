"""What the bandits' raw regrets say: tables, regret curves, and on what they were measured."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from pmpo_offline.evaluation.statistics import Interval, bootstrap
from pmpo_offline.tasks.bandit import FUNCTIONS

FLOOR = 1e-8
"""Regrets below this are rounding."""
# Okabe and Ito's colours, which colour-blind readers can tell apart; dashes tell variants of one method apart in grey.
LINES = {
    "PMPO accepts": ("#009E73", "-"),
    "PMPO rejects": ("#D55E00", "-"),
    "PMPO both": ("#0072B2", "-"),
    "MPO": ("#CC79A7", (0, (6, 1.5))),
    "DPO best/worst": ("#E69F00", (0, (1, 1))),
    "DPO all pairs": ("#56B4E9", (0, (3, 1, 1, 1))),
    "random labels": ("#777777", ":"),
}
KINDS = {
    "regret_of_samples": "Regret of the policy's samples",
    "regret_of_mean": "Regret of the policy's mean action",
}


def log_regret(column: str) -> pl.Expr:
    """Log10 of a regret; a run that diverged counts like a random action, 0."""
    return pl.col(column).fill_nan(1.0).clip(FLOOR, None).log10()


def write(
    output: Path,
    raw: pl.DataFrame,
    tuned: dict[str, Any],
    bounds: Sequence[dict[str, Any]],
    arms: Sequence[str],
    took: dict[str, float] | None,
) -> None:
    """Write report.md, report.json and a picture of each kind of regret to `output`.

    `took` is None where some cells stood already: then the time that was measured before is kept.
    """
    rows = summary(raw, arms)
    before = output / "report.json"
    made = json.loads(before.read_text())["made"] if took is None and before.exists() else {**machine(), "took": took}
    before.write_text(json.dumps({"made": made, "bounds": bounds, "rows": rows}, indent=1) + "\n")
    for column, title in KINDS.items():
        figure(raw, arms, column, title).savefig(output / f"{column}.png", dpi=110)
    findings = output / "findings.md"
    text = findings.read_text() if findings.exists() else "# Bandits\n"
    (output / "report.md").write_text(text.rstrip() + "\n\n" + markdown(rows, tuned, bounds, made, arms, raw))


def machine() -> dict[str, Any]:
    """Return what the results were made on."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("pmpo-offline", "numpy", "torch")},
    }


def summary(raw: pl.DataFrame, arms: Sequence[str]) -> list[dict[str, Any]]:
    """Return, an arm and problem, the last regrets and the whole curve's mean, each with its interval over runs."""
    last = raw["step"].max()
    rows = []
    for (function, dimensions, arm), runs in raw.group_by("function", "dimensions", "arm", maintain_order=True):
        final = runs.filter(pl.col("step") == last)
        measured = {f"final_{column}": final.select(log_regret(column)).to_series() for column in KINDS}
        curve = runs.group_by("seed", maintain_order=True).agg(log_regret("regret_of_samples").mean().alias("curve"))
        measured["curve"] = curve["curve"]
        rows.append(
            {
                "function": function,
                "dimensions": dimensions,
                "arm": arm,
                "seeds": len(final),
                "diverged": int(final["regret_of_samples"].is_nan().sum()),
                "deviation": final["deviation"].median(),
                **{name: _regret(bootstrap([values.to_numpy()])) for name, values in measured.items()},
            }
        )
    functions = list(dict.fromkeys(raw["function"]))
    return sorted(rows, key=lambda row: (functions.index(row["function"]), row["dimensions"], arms.index(row["arm"])))


def _regret(interval: Interval) -> list[float]:
    return [10**value for value in (interval.estimate, interval.low, interval.high)]


def figure(raw: pl.DataFrame, arms: Sequence[str], column: str, title: str) -> Figure:
    """Return small multiples, a function a row and a dimension a column: regret by samples seen."""
    functions = list(dict.fromkeys(raw["function"]))
    dimensions = sorted(set(raw["dimensions"]))
    picture = Figure(figsize=(4.2 * len(dimensions), 3.2 * len(functions) + 1.1), layout="constrained")
    grid = picture.subplots(len(functions), len(dimensions), sharex=True, sharey="row", squeeze=False)
    for (i, function), (j, dimension) in ((a, b) for a in enumerate(functions) for b in enumerate(dimensions)):
        axes = grid[i][j]
        problem = raw.filter((pl.col("function") == function) & (pl.col("dimensions") == dimension))
        for arm in arms:
            runs = problem.filter(pl.col("arm") == arm).with_columns(log=log_regret(column)).sort("step", "seed")
            steps = runs["step"].unique(maintain_order=True).to_numpy()
            values = runs["log"].to_numpy().reshape(len(steps), -1)
            curve = np.array([_regret(bootstrap([each], replicates=400)) for each in values])
            colour, dashes = LINES[arm]
            axes.plot(4 * steps, curve[:, 0], color=colour, linestyle=dashes, linewidth=2, label=arm)
            axes.fill_between(4 * steps, curve[:, 1], curve[:, 2], color=colour, alpha=0.18, linewidth=0)
        at_zero = float(FUNCTIONS[function].regret(torch.zeros(dimension)))
        axes.axhline(at_zero, color="black", linewidth=0.8, label="action 0")
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 0.8, 0.6) if _narrow(raw, function, column) else (1.0,)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.25)
        axes.set_title(f"{function.capitalize()}, {dimension} dimensions", fontsize=12)
        axes.spines[["top", "right"]].set_visible(False)
        if i == len(functions) - 1:
            axes.set_xlabel("samples seen (four a step)")
        if j == 0:
            axes.set_ylabel("regret (random action = 1)")
    handles, labels = grid[0][0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, handlelength=3)
    picture.suptitle(f"{title}: interquartile mean over runs with 95 % interval", fontsize=14)
    return picture


def _narrow(raw: pl.DataFrame, function: str, column: str) -> bool:
    """Whether a function's regrets stay within one power of ten: its axis then needs ticks between."""
    medians = (
        raw.filter(pl.col("function") == function).group_by("dimensions", "arm", "step").agg(pl.col(column).median())
    )
    return bool(medians[column].min() > 0.1)


def markdown(
    rows: Sequence[dict[str, Any]],
    tuned: dict[str, Any],
    bounds: Sequence[dict[str, Any]],
    made: dict[str, Any],
    arms: Sequence[str],
    raw: pl.DataFrame,
) -> str:
    """Return the tables, the tuned settings and where the numbers come from."""
    seeds, last = max(row["seeds"] for row in rows), raw["step"].max()
    parts = [
        f"## Numbers\n\nInterquartile means over {seeds} runs of log10 regret, shown as regrets (0 the best action, "
        "1 a random one) with their 95 % bootstrap intervals. Bold: no other interval lies wholly below.",
        f"Regret of the policy's samples after {last} steps ({4 * last} samples):",
        _table(rows, arms, "final_regret_of_samples"),
        f"Regret of its mean action after {last} steps:",
        _table(rows, arms, "final_regret_of_mean"),
        "The whole curve (geometric mean over time of the samples' regret), which is what was tuned for:",
        _table(rows, arms, "curve"),
        *(f"![{title}]({column}.png)" for column, title in KINDS.items()),
        "## Settings\n\nEach arm's strength (five values) and learning rate (three) were chosen once for all nine "
        "problems, on five seeds that are not among those above, by the mean of log10 regret over time and problems; "
        "`tuning.json` holds every score.",
        _settings(tuned),
        "## The bound\n\nThe least β at which PMPO is bounded for a Gaussian (`objectives.stability`), "
        "computed at five of the starts from the better and the worse two of four (least and largest), beside the one "
        "β that was chosen.",
        _bounds(bounds),
        _made(made),
    ]
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[dict[str, Any]], arms: Sequence[str], column: str) -> str:
    problems = list(dict.fromkeys((row["function"], row["dimensions"]) for row in rows))
    by_name = {(row["function"], row["dimensions"], row["arm"]): row[column] for row in rows}
    lines = ["| | " + " | ".join(_problem(*problem) for problem in problems) + " |"]
    lines.append("|---|" + "---|" * len(problems))
    for arm in arms:
        cells = []
        for problem in problems:
            estimate, low, high = by_name[(*problem, arm)]
            text = f"{_short(estimate)}"
            if all(by_name[(*problem, other)][2] >= low for other in arms):
                text = f"**{text}**"
            cells.append(f"{text} ({_short(low)} – {_short(high)})")
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _short(regret: float) -> str:
    return f"{regret:.2f}" if regret >= 0.095 else f"{regret:.1e}".replace("e-0", "e-")


def _settings(tuned: dict[str, Any]) -> str:
    lines = [
        "| arm | strength | values tried | learning rate | mean log10 regret: chosen, next, worst |",
        "|---|---|---|---|---|",
    ]
    for arm, chosen in tuned.items():
        tried = ", ".join(f"{value:g}" for value in sorted({row["strength"] for row in chosen["grid"]}))
        scores = [row["score"] for row in chosen["grid"]]
        lines.append(
            f"| {arm} | {chosen['name']} = {chosen['strength']:g} | {tried} | {chosen['learning_rate']:g} | "
            f"{scores[0]:.2f}, {scores[1]:.2f}, {scores[-1]:.2f} |"
        )
    return "\n".join(lines)


def _bounds(bounds: Sequence[dict[str, Any]]) -> str:
    lines = ["| | " + " | ".join(_problem(row["function"], row["dimensions"]) for row in bounds) + " | chosen β |"]
    lines.append("|---|" + "---|" * (len(bounds) + 1))
    for arm in [name for name in bounds[0] if name not in ("function", "dimensions")]:
        values = " | ".join(f"{row[arm]['low']:.2f} – {row[arm]['high']:.2f}" for row in bounds)
        lines.append(f"| {arm} | {values} | {bounds[0][arm]['chosen']:g} |")
    return "\n".join(lines)


def _problem(function: str, dimensions: int) -> str:
    return f"{function.capitalize()} {dimensions}"


def _made(made: dict[str, Any]) -> str:
    took = made["took"]
    versions = ", ".join(f"{name} {made[name]}" for name in ("pmpo-offline", "torch", "numpy", "python"))
    time = ""
    if took is not None:
        spent = f"{took['cpu']:.0f} CPU-seconds, {took['workers']} processes of one thread"
        time = f" All runs took {took['wall']:.0f} s ({spent}; the machine's load was {took['load']:.1f} before)."
    return f"Made on {made['cores']} cores of an {made['processor']} with {versions}.{time}"
