"""Tables and pictures of the calibration experiment, from its raw numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.experiments import shared
from benchmarks.experiments.shared import BLACK, BLUE, GREY, RED
from pmpo_offline.data import rank

Array = NDArray[np.float64]
BINS, REPLICATES = 8, 2000
SHOWN = (("recorded", 1.0), ("recorded", 0.9), ("first order", 0.9))  # of the reliability curves
FILES = {"network": "Q - V", "first_order": "first order"}
"""Names of the fitted advantages of a file; recorded ones need no action values."""


@dataclass(frozen=True)
class Truth:
    """Returns from S states with K actions each, of which the recorded one is the first."""

    row: NDArray[np.int64]
    returns: Array
    """(S, K + 1, R / 2); the last is the behaviour itself."""

    @classmethod
    def read(cls, path: Path) -> Truth:
        table = pl.read_parquet(path)
        row = table["row"].unique(maintain_order=True).to_numpy()
        return cls(row, table["returns"].to_numpy().astype(np.float64).reshape(len(row), len(table) // len(row), -1))

    @cached_property
    def value(self) -> Array:
        """V(s), (S,)."""
        return np.asarray(self.returns[:, -1].mean(axis=-1))

    @cached_property
    def advantage(self) -> Array:
        """(S, K)."""
        return np.asarray((self.returns[:, :-1] - self.returns[:, -1:]).mean(axis=-1))

    @cached_property
    def error(self) -> Array:
        """Standard errors of the advantages, (S, K)."""
        difference = self.returns[:, :-1] - self.returns[:, -1:]
        return np.asarray(difference.std(axis=-1, ddof=1) / np.sqrt(difference.shape[-1]))

    @cached_property
    def reliability(self) -> float:
        """Share of the estimated advantages' variance that is no error of estimation, of the recorded actions."""
        return float(1 - np.square(self.error[:, 0]).mean() / self.advantage[:, 0].var(ddof=1))


@dataclass(frozen=True)
class Scored:
    """Measures of one way of scoring on one task, as functions of a sample of its states."""

    truth: Truth
    score: Array
    """Of the recorded actions, (S,)."""
    ranked: Array
    """Q - V of the candidates, (S, K - 1)."""

    def correlation(self, state: NDArray[np.int64]) -> float:
        """With the true advantages, corrected for the errors of their estimates (Spearman, 1904)."""
        found = np.corrcoef(self.score[state], self.truth.advantage[state, 0])[0, 1]
        return float(found / np.sqrt(self.truth.reliability))

    def signs(self, state: NDArray[np.int64]) -> float:
        """Share of signs that are right, of the advantages that are further from 0 than two standard errors."""
        truth, error = self.truth.advantage[state, 0], self.truth.error[state, 0]
        clear = np.abs(truth) > 2 * error
        return float(((self.score[state] > 0) == (truth > 0))[clear].mean()) if clear.any() else np.nan

    def precision(self, state: NDArray[np.int64]) -> float:
        """Share of the accepted that are better than the behaviour, among the same."""
        truth, error = self.truth.advantage[state, 0], self.truth.error[state, 0]
        accepted = (np.abs(truth) > 2 * error) & (self.score[state] > 0)
        return float((truth > 0)[accepted].mean()) if accepted.any() else np.nan

    def gap(self, state: NDArray[np.int64]) -> float:
        """True advantage of accepted less that of rejected, in deviations of the true advantage."""
        truth, accepted = self.truth.advantage[state, 0], self.score[state] > 0
        if accepted.all() or not accepted.any():
            return 0.0
        spread = np.sqrt(self.truth.reliability) * self.truth.advantage[:, 0].std(ddof=1)
        return float((truth[accepted].mean() - truth[~accepted].mean()) / spread)

    def ranks(self, state: NDArray[np.int64]) -> float:
        """Share of the candidates that are put on the right side of top 2 and bottom 2; by chance one half."""
        return float((rank(self.ranked[state], 2) == rank(self.truth.advantage[state, 1:], 2)).mean())


MEASURES: dict[str, Callable[[Scored, NDArray[np.int64]], float]] = {
    "correlation": Scored.correlation,
    "signs": Scored.signs,
    "precision": Scored.precision,
    "gap": Scored.gap,
    "ranks": Scored.ranks,
}


def write(out: Path) -> None:
    """Write report.md, reliability.png and measures.png."""
    tasks = sorted(path.name.removesuffix("-truth.parquet") for path in (out / "raw").glob("*-truth.parquet"))
    truths = {task: Truth.read(out / "raw" / f"{task}-truth.parquet") for task in tasks}
    judged = pl.concat(scores(out / "raw", task) for task in tasks)
    measured = table(truths, judged)
    measured.write_parquet(out / "measures.parquet")
    reliability(truths, judged).savefig(out / "reliability.png", dpi=130)
    bars(measured).savefig(out / "measures.png", dpi=130)
    (out / "report.md").write_text(text(truths, measured, uses(out / "raw", tasks)), encoding="utf-8")


def scores(raw: Path, task: str) -> pl.DataFrame:
    """One row a state, arm, trace and way of scoring; of Q - V by a network the whole return alone is looked at."""
    parts = []
    for kind, way in FILES.items():
        rows = pl.read_parquet(raw / f"{task}-{kind}.parquet").with_columns(task=pl.lit(task))
        if kind == "network":
            parts.append(rows.with_columns(way=pl.lit("recorded")))
            rows = rows.filter(pl.col("trace") == 1)
        parts.append(rows.with_columns(way=pl.lit(way), score=pl.col("advantage")))
    return pl.concat(parts)


def table(truths: dict[str, Truth], judged: pl.DataFrame) -> pl.DataFrame:
    """One row a task, way of scoring, trace and measure, with bootstrap intervals over states."""
    found = []
    for (task, way, trace), rows in judged.group_by("task", "way", "trace", maintain_order=True):
        truth = truths[str(task)]
        score, fitted, value = (
            rows[name].to_numpy().reshape(truth.advantage.shape) for name in ("score", "advantage", "value")
        )
        error = truth.value - value[:, 0]
        explained = 1 - error.var() / truth.value.var()
        verdict, states = Scored(truth, score[:, 0], fitted[:, 1:]), np.arange(len(score))
        for measure, function in MEASURES.items():
            if measure == "ranks" and way == "recorded":
                continue  # a recorded return says nothing of other actions
            rng = np.random.default_rng(0)
            drawn = [function(verdict, rng.choice(states, len(states))) for _ in range(REPLICATES)]
            low, high = np.nanquantile(drawn, (0.025, 0.975))
            estimate = function(verdict, states)
            found.append((task, way, trace, measure, estimate, low, high, explained, rows["seconds"][0]))
    names = ("task", "way", "trace", "measure", "estimate", "low", "high", "value", "seconds")
    return pl.DataFrame(found, schema=names, orient="row")


def text(truths: dict[str, Truth], measured: pl.DataFrame, used: str) -> str:
    parts = [
        "# Are the advantages right?",
        "Written by `python -m benchmarks.experiments.calibration.run`; what follows from it is in README.md. 95 % "
        "bootstrap intervals over states. *Correlation* with the true advantage, corrected for the errors of its "
        "estimate. *Signs*: right ones, and *precision*: accepted steps that are truly better than the behaviour, "
        "both of the steps whose true advantage is known to be above or below 0 (two standard errors). *Gap*: true "
        "advantage of accepted less that of rejected steps, in deviations of the true advantage. *Ranks*: candidates "
        "on the right side of top 2 and bottom 2 (chance .5). CPU-seconds are those of all folds.",
        "![Reliability](reliability.png)",
        "![Measures](measures.png)",
    ]
    for task, truth in truths.items():
        clear = np.abs(truth.advantage[:, 0]) > 2 * truth.error[:, 0]
        mine = measured.filter(pl.col("task") == task)
        parts.append(f"## {task}")
        parts.append(
            f"{len(truth.row)} states, {2 * truth.returns.shape[-1]} rollouts an action. True V has deviation "
            f"{truth.value.std():.2f}, true advantages "
            f"{np.sqrt(max(truth.reliability, 0)) * truth.advantage[:, 0].std():.2f} (standard error of one "
            f"{np.sqrt(np.square(truth.error[:, 0]).mean()):.2f}; reliability {truth.reliability:.2f}); {clear.sum()} "
            f"are clear of 0, {(truth.advantage[clear, 0] > 0).mean():.0%} of these above."
        )
        lines = []
        for (way, trace), rows in mine.group_by("way", "trace", maintain_order=True):
            cells = {
                r["measure"]: f"{r['estimate']:.2f} ({r['low']:.2f} – {r['high']:.2f})"
                for r in rows.iter_rows(named=True)
            }
            found = [cells.get(name, "–") for name in MEASURES]
            lines.append([str(way), f"{trace:g}", f"{rows['value'][0]:.3f}", *found, f"{rows['seconds'][0]:.0f}"])
        header = ("score", "λ", "V explains, of the truth", *MEASURES, "CPU-s")
        parts.append("\n".join(shared.table(header, lines, "lr")))
    parts.append("## What a clone of the accepted steps reaches")
    parts.append("Mean return of three clones a row (lowest – highest), 20 episodes each, means played.")
    parts.append(used)
    parts.append(shared.hardware("pmpo-offline", "torch", "mujoco", "numpy"))
    return "\n\n".join(parts) + "\n"


def uses(raw: Path, tasks: list[str]) -> str:
    """Mean return of the clones of accepted steps, one column a task."""
    runs = pl.concat(pl.read_parquet(raw / f"{task}-use.parquet").with_columns(task=pl.lit(task)) for task in tasks)
    means = runs.group_by("way", "trace", "task", "run", maintain_order=True).agg(pl.col("return").mean())
    lines = []
    for (way, trace), rows in means.group_by("way", "trace", maintain_order=True):
        cells = []
        for task in tasks:
            each = rows.filter(pl.col("task") == task)["return"]
            cells.append(f"{each.mean():.0f} ({each.min():.0f} – {each.max():.0f})")
        lines.append([str(way), "–" if np.isnan(float(str(trace))) else f"{trace:g}", *cells])
    return "\n".join(shared.table(("accepted", "λ", *tasks), lines, "lr"))


def reliability(truths: dict[str, Truth], judged: pl.DataFrame) -> Figure:
    """Mean true advantage of steps with like scores: a perfect critic lies on the diagonal."""
    picture = Figure(figsize=(3.4 * len(SHOWN), 3.1 * len(truths)), layout="constrained")
    grid = picture.subplots(len(truths), len(SHOWN), squeeze=False)
    for axes_row, (task, truth) in zip(grid, truths.items(), strict=True):
        for axes, (way, trace) in zip(axes_row, SHOWN, strict=True):
            chosen = judged.filter((pl.col("task") == task) & (pl.col("way") == way) & (pl.col("trace") == trace))
            score = chosen.filter(pl.col("arm") == 0)["score"].to_numpy()
            actual = truth.advantage[:, 0]
            limit = 1.5 * np.quantile(np.abs(actual), 0.98)  # a rare fall lies outside
            axes.scatter(score, actual, s=6, color=GREY, alpha=0.4, linewidths=0)
            axes.axline((0, 0), slope=1, color=BLACK, linewidth=0.8)
            axes.axhline(0, color=GREY, linewidth=0.5)
            for part in np.array_split(np.argsort(score), BINS):
                spread = 1.96 * actual[part].std(ddof=1) / np.sqrt(len(part))
                colour = BLUE if way == "first order" else RED
                axes.errorbar(score[part].mean(), actual[part].mean(), spread, fmt="o", color=colour, capsize=2)
            axes.set_xlim(*np.quantile(score, (0.01, 0.99)) * 1.05)
            axes.set_ylim(-limit, limit)
            axes.set_title(f"{task}\n{way}, λ = {trace:g}", fontsize=9)
            axes.set_xlabel("score")
        axes_row[0].set_ylabel("true advantage")
    return picture


def bars(measured: pl.DataFrame) -> Figure:
    """Every measure over the trace, one line a way of scoring."""
    tasks = measured["task"].unique(maintain_order=True).to_list()
    names = ("correlation", "signs", "ranks")
    picture = Figure(figsize=(3.6 * len(names), 2.6 * len(tasks)), layout="constrained")
    grid = picture.subplots(len(tasks), len(names), squeeze=False)
    looks = {"recorded": (RED, "o"), "Q - V": (GREY, "s"), "first order": (BLUE, "D")}
    for axes_row, task in zip(grid, tasks, strict=True):
        for axes, name in zip(axes_row, names, strict=True):
            for place, (way, (colour, marker)) in enumerate(looks.items()):
                rows = measured.filter(
                    (pl.col("task") == task) & (pl.col("way") == way) & (pl.col("measure") == name)
                ).sort("trace")
                if rows.is_empty():
                    continue
                x = rows["trace"].to_numpy() + 0.006 * (place - 1)
                middle, low, high = (rows[each].to_numpy() for each in ("estimate", "low", "high"))
                arms = np.maximum([middle - low, high - middle], 0)
                axes.errorbar(x, middle, arms, fmt=f"{marker}-", color=colour, capsize=2, markersize=4, label=way)
            axes.axhline(0.0 if name == "correlation" else 0.5, color=BLACK, linewidth=0.6)
            axes.set_title(f"{task}: {name}", fontsize=9)
            axes.set_xlim(0.47, 1.03)
            axes.set_xlabel("λ")
    grid[0][0].legend(frameon=False, fontsize=8)
    return picture
