"""How often do 95 % intervals of few training runs hold the truth? Measured on populations whose truth is known.

    python -m benchmarks.experiments.intervals.run

Draws runs from six populations, computes the intervals of `evaluation.statistics` and the percentile bootstraps that
they replaced, and counts. Writes coverage.parquet and README.md to benchmarks/results/intervals/ in two CPU-minutes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
import typer
from scipy import stats

from benchmarks.experiments import shared
from pmpo_offline.evaluation.statistics import Floats, Interval, interval, iqm, probability_of_improvement

OUT = shared.RESULTS / "intervals"
TRIALS, REPLICATES = 2000, 400
Generator = np.random.Generator


def _failing(share: float) -> Callable[[Generator, tuple[int, ...]], Floats]:
    """Return a population of which a share of the runs fails."""

    def draw(generator: Generator, shape: tuple[int, ...]) -> Floats:
        fails = generator.random(shape) < share
        return np.where(fails, generator.normal(40, 3, shape), generator.normal(90, 3, shape))

    return draw


POPULATIONS: dict[str, Callable[[Generator, tuple[int, ...]], Floats]] = {
    "Gaussian": lambda generator, shape: generator.normal(50, 10, shape),
    "skewed (lognormal, σ .8)": lambda generator, shape: 10 * generator.lognormal(0, 0.8, shape),
    "heavy tails (t, 3 d.f.)": lambda generator, shape: 50 + 5 * generator.standard_t(3, shape),
    "below a ceiling (exponential)": lambda generator, shape: 100 - generator.exponential(5, shape),
    "one run in three fails": _failing(1 / 3),
    "one run in ten fails": _failing(0.1),
}
SHAPES = ((1, 3), (1, 5), (1, 10), (9, 3), (9, 5))
"""Tasks and runs a task; tasks are 5 apart."""
DISTANCES = (0.0, 1.0, 2.0, 3.0)
"""Between the two Gaussians of a probability of improvement, in deviations."""


def percentile(statistic: Callable[[Floats], Floats], replicated: Floats, estimate: float) -> Interval:
    """Return the percentile bootstrap's interval from resampled scores."""
    low, high = np.quantile(statistic(replicated), [0.025, 0.975])
    return Interval(estimate, float(low), float(high))


def of_iqm(population: str, tasks: int, runs: int) -> dict[str, Any]:
    """Return the coverage of the IQM of some runs on some tasks."""
    generator, draw = np.random.default_rng(0), POPULATIONS[population]
    offsets = 5.0 * (np.arange(tasks) - (tasks - 1) / 2)[:, None]
    everything = (draw(generator, (tasks, 2_000_000 // tasks)) + offsets).ravel()
    truth = float(iqm(everything))
    found: dict[str, list[Interval]] = {"percentile bootstrap": [], "here": []}
    for trial in range(TRIALS):
        scores = draw(generator, (tasks, runs)) + offsets
        found["here"].append(interval([*scores], replicates=REPLICATES, seed=trial))
        drawn = generator.integers(runs, size=(REPLICATES, tasks, runs))
        replicated = np.take_along_axis(scores[None], drawn, axis=-1).reshape(REPLICATES, -1)
        found["percentile bootstrap"].append(percentile(iqm, replicated, float(iqm(scores.ravel()))))
    return {"statistic": "IQM", "population": population, "tasks": tasks, "runs": runs} | _summary(found, truth)


def of_improvement(distance: float, runs: int) -> dict[str, Any]:
    """Return the coverage of the probability that a run beats one of another Gaussian."""
    generator = np.random.default_rng(1)
    truth = float(stats.norm.cdf(distance / np.sqrt(2)))
    found: dict[str, list[Interval]] = {"percentile bootstrap": [], "here": []}
    for _ in range(TRIALS):
        ours, theirs = generator.normal(distance, 1, runs), generator.normal(0, 1, runs)
        found["here"].append(probability_of_improvement([ours], [theirs]))
        one, other = (each[generator.integers(runs, size=(REPLICATES, runs))] for each in (ours, theirs))
        wins = (one[:, :, None] > other[:, None, :]).mean(axis=(1, 2))
        found["percentile bootstrap"].append(percentile(np.asarray, wins, found["here"][-1].estimate))
    named = {"statistic": "P(better)", "population": f"{truth:.2f}", "tasks": 1, "runs": runs}
    return named | _summary(found, truth)


def _summary(found: dict[str, list[Interval]], truth: float) -> dict[str, float]:
    return {
        f"{method}, {name}": float(np.mean(values))
        for method, intervals in found.items()
        for name, values in {
            "coverage": [each.low <= truth <= each.high for each in intervals],
            "width": [each.high - each.low for each in intervals],
            "degenerate": [each.high == each.low for each in intervals],
        }.items()
    }


def measured() -> Iterator[dict[str, Any]]:
    """Yield one record a statistic, population and number of runs."""
    for population, (tasks, runs) in itertools.product(POPULATIONS, SHAPES):
        yield of_iqm(population, tasks, runs)
    for distance, runs in itertools.product(DISTANCES, (3, 5, 10)):
        yield of_improvement(distance, runs)


def page(frame: pl.DataFrame) -> str:
    """Return README.md."""
    sections = []
    for (statistic,), rows in frame.group_by("statistic", maintain_order=True):
        first = "population" if statistic == "IQM" else "true P(better)"
        columns = ["percentile bootstrap, coverage", "here, coverage", "percentile bootstrap, width", "here, width"]
        lines = [
            [row["population"], str(row["tasks"]), str(row["runs"])]
            + [f"{row[name]:.3f}" if "coverage" in name else f"{row[name]:.2f}" for name in columns]
            + [f"{row['percentile bootstrap, degenerate']:.2f}"]
            for row in rows.to_dicts()
        ]
        header = [first, "tasks", "runs", "percentile: coverage", "here: coverage", "percentile: width", "here: width"]
        body = shared.table([*header, "percentile: no width"], lines, "lr")
        sections.append("\n".join([f"## {statistic}", "", *body]))
    return shared.with_findings(OUT, "Intervals", "\n\n".join(sections)) + f"\n\n{shared.hardware('numpy', 'scipy')}\n"


def main(again: Annotated[bool, typer.Option(help="Measure again, or write the page only.")] = True) -> None:
    """Measure coverage and write the page."""
    path: Path = OUT / "coverage.parquet"
    if again or not path.exists():
        OUT.mkdir(parents=True, exist_ok=True)
        shared.save(pl.DataFrame([*measured()]), path)
    (OUT / "README.md").write_text(page(pl.read_parquet(path)), encoding="utf-8")


if __name__ == "__main__":
    shared.script(main)
