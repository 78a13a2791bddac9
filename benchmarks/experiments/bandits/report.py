"""Tables and regret curves of the bandit experiment, from its raw regrets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.experiments import shared
from benchmarks.experiments.shared import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY
from pmpo_offline.evaluation.statistics import Interval, interval
from pmpo_offline.tasks.bandit import FUNCTIONS

FLOOR = 1e-8
"""Regrets below this are rounding."""
LINES = {  # colour, and dashes that tell variants of one method apart in grey
    "PMPO accepts": (GREEN, "-"),
    "PMPO rejects": (RED, "-"),
    "PMPO both": (BLUE, "-"),
    "MPO": (PURPLE, (0, (6, 1.5))),
    "DPO best/worst": (ORANGE, (0, (1, 1))),
    "DPO all pairs": (SKY, (0, (3, 1, 1, 1))),
    "random labels": (GREY, ":"),
}
KINDS = {
    "regret_of_samples": "Regret of the policy's samples",
    "regret_of_mean": "Regret of the policy's mean action",
}


def log_regret(column: str) -> pl.Expr:
    """Log10 of a regret; a run that diverged counts like a random action, 0."""
    return pl.col(column).fill_nan(1.0).clip(FLOOR, None).log10()


@dataclass(frozen=True)
class Report:
    """What the tables and pictures are made from.

    Args:
        raw: one row a run and recorded step.
        tuned: each arm's chosen setting and its grid.
        bounds: one row a problem, see `run.bounds`.
        arms: their names, in the order of the tables.
    """

    raw: pl.DataFrame
    tuned: Mapping[str, Any]
    bounds: Sequence[Mapping[str, Any]]
    arms: Sequence[str]

    def write(self, output: Path, took: Mapping[str, float] | None) -> None:
        """Write report.md, report.json and a picture of each kind of regret to `output`.

        `took` is None if some cells were reused: then the time measured before is kept.
        """
        rows, path = summary(self.raw, self.arms), output / "report.json"
        if took is None and path.exists():
            made = json.loads(path.read_text())["made"]
        else:
            made = {**shared.machine("pmpo-offline", "numpy", "torch"), "took": took}
        path.write_text(json.dumps({"made": made, "bounds": self.bounds, "rows": rows}, indent=1) + "\n")
        for column, title in KINDS.items():
            figure(self.raw, self.arms, column, title).savefig(output / f"{column}.png", dpi=110)
        (output / "report.md").write_text(shared.with_findings(output, "Bandits", self.markdown(rows, made)))

    def markdown(self, rows: Sequence[Mapping[str, Any]], made: Mapping[str, Any]) -> str:
        """Return the tables of the `summary`, the tuned settings, the bounds and what the numbers were made on."""
        seeds, last = max(row["seeds"] for row in rows), self.raw["step"].max()
        parts = [
            f"## Numbers\n\nInterquartile means over {seeds} runs of log10 regret, shown as regrets (0 the best "
            "action, 1 a random one) with their 95 % intervals. Bold: no other interval lies wholly below.",
            f"Regret of the policy's samples after {last} steps ({4 * last} samples):",
            _table(rows, self.arms, "final_regret_of_samples"),
            f"Regret of its mean action after {last} steps:",
            _table(rows, self.arms, "final_regret_of_mean"),
            "The whole curve (geometric mean over time of the samples' regret), which is what was tuned for:",
            _table(rows, self.arms, "curve"),
            *(f"![{title}]({column}.png)" for column, title in KINDS.items()),
            "## Settings\n\nEach arm's strength (five values) and learning rate (three) were chosen once for all nine "
            "problems, on five seeds that are not among those above, by the mean of log10 regret over time and "
            "problems; `tuning.json` holds every score.",
            _settings(self.tuned),
            "## The bound\n\nThe least β at which PMPO is bounded for a Gaussian (`objectives.stability`), "
            "computed at five of the starts from the better and the worse two of four (least and largest), beside the "
            "one β that was chosen.",
            _bounds(self.bounds),
            _made(made),
        ]
        return "\n\n".join(parts) + "\n"


def summary(raw: pl.DataFrame, arms: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row an arm and problem: its last regrets and the mean of its whole curve, with intervals over runs."""
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
                **{name: _regret(interval([values.to_numpy()])) for name, values in measured.items()},
            }
        )
    functions = list(dict.fromkeys(raw["function"]))
    return sorted(rows, key=lambda row: (functions.index(row["function"]), row["dimensions"], arms.index(row["arm"])))


def _regret(found: Interval) -> list[float]:
    return [10**value for value in (found.estimate, found.low, found.high)]


def figure(raw: pl.DataFrame, arms: Sequence[str], column: str, title: str) -> Figure:
    """Return small multiples, a function a row and a dimension a column: regret by samples seen."""
    functions = list(dict.fromkeys(raw["function"]))
    dimensions = sorted(set(raw["dimensions"]))
    picture = Figure(figsize=(4.2 * len(dimensions), 3.2 * len(functions) + 1.1), layout="constrained")
    grid = picture.subplots(len(functions), len(dimensions), sharex=True, sharey="row", squeeze=False)
    for axes_row, function in zip(grid, functions, strict=True):
        subs = (1.0, 0.8, 0.6) if _narrow(raw, function, column) else (1.0,)
        for axes, dimension in zip(axes_row, dimensions, strict=True):
            _curves(axes, raw.filter(function=function, dimensions=dimension), arms, column)
            at_zero = float(FUNCTIONS[function].regret(torch.zeros(dimension)))
            axes.axhline(at_zero, color="black", linewidth=0.8, label="action 0")
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=subs))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.set_title(f"{function.capitalize()}, {dimension} dimensions", fontsize=12)
            shared.bare(axes)
        axes_row[0].set_ylabel("regret (random action = 1)")
    for axes in grid[-1]:
        axes.set_xlabel("samples seen (four a step)")
    shared.legend_below(picture, 4)
    picture.suptitle(f"{title}: interquartile mean over runs with 95 % interval", fontsize=14)
    return picture


def _curves(axes: Axes, problem: pl.DataFrame, arms: Sequence[str], column: str) -> None:
    for arm in arms:
        runs = problem.filter(arm=arm).with_columns(log=log_regret(column)).sort("step", "seed")
        steps = runs["step"].unique(maintain_order=True).to_numpy()
        values = runs["log"].to_numpy().reshape(len(steps), -1)
        curve = np.array([_regret(interval([each], replicates=400)) for each in values])
        colour, dashes = LINES[arm]
        axes.plot(4 * steps, curve[:, 0], color=colour, linestyle=dashes, linewidth=2, label=arm)
        axes.fill_between(4 * steps, curve[:, 1], curve[:, 2], color=colour, alpha=0.18, linewidth=0)


def _narrow(raw: pl.DataFrame, function: str, column: str) -> bool:
    """Whether a function's regrets stay within one power of ten: its axis then needs ticks between."""
    medians = raw.filter(function=function).group_by("dimensions", "arm", "step").agg(pl.col(column).median())
    return bool(medians[column].min() > 0.1)


def _table(rows: Sequence[Mapping[str, Any]], arms: Sequence[str], column: str) -> str:
    problems = list(dict.fromkeys((row["function"], row["dimensions"]) for row in rows))
    by_name = {(row["function"], row["dimensions"], row["arm"]): row[column] for row in rows}

    def cell(problem: tuple[str, int], arm: str) -> str:
        estimate, low, high = by_name[(*problem, arm)]
        best = all(by_name[(*problem, other)][2] >= low for other in arms)
        text = f"**{_short(estimate)}**" if best else _short(estimate)
        return f"{text} ({_short(low)} – {_short(high)})"

    lines = ([arm, *(cell(problem, arm) for problem in problems)] for arm in arms)
    return "\n".join(shared.table(["", *(_problem(*problem) for problem in problems)], lines))


def _short(regret: float) -> str:
    return f"{regret:.2f}" if regret >= 0.095 else f"{regret:.1e}".replace("e-0", "e-")


def _settings(tuned: Mapping[str, Any]) -> str:
    lines = []
    for arm, chosen in tuned.items():
        tried = ", ".join(f"{value:g}" for value in sorted({row["strength"] for row in chosen["grid"]}))
        scores = [row["score"] for row in chosen["grid"]]
        shown = f"{scores[0]:.2f}, {scores[1]:.2f}, {scores[-1]:.2f}"
        lines.append([arm, f"{chosen['name']} = {chosen['strength']:g}", tried, f"{chosen['learning_rate']:g}", shown])
    header = ("arm", "strength", "values tried", "learning rate", "mean log10 regret: chosen, next, worst")
    return "\n".join(shared.table(header, lines))


def _bounds(bounds: Sequence[Mapping[str, Any]]) -> str:
    arms = [name for name in bounds[0] if name not in ("function", "dimensions")]
    lines = [
        [arm, *(f"{row[arm]['low']:.2f} – {row[arm]['high']:.2f}" for row in bounds), f"{bounds[0][arm]['chosen']:g}"]
        for arm in arms
    ]
    problems = [_problem(row["function"], row["dimensions"]) for row in bounds]
    return "\n".join(shared.table(["", *problems, "chosen β"], lines))


def _problem(function: str, dimensions: int) -> str:
    return f"{function.capitalize()} {dimensions}"


def _made(made: Mapping[str, Any]) -> str:
    took = made["took"]
    versions = ", ".join(f"{name} {made[name]}" for name in ("pmpo-offline", "torch", "numpy", "python"))
    time = ""
    if took is not None:
        spent = f"{took['cpu']:.0f} CPU-seconds, {took['workers']} processes of one thread"
        time = f" All runs took {took['wall']:.0f} s ({spent}; the machine's load was {took['load']:.1f} before)."
    return f"Made on {made['cores']} cores of an {made['processor']} with {versions}.{time}"
