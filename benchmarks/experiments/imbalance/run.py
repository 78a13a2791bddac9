"""The map on bandits: accepted share × coverage × flips × kind of imbalance, every learner beside the filtered clones.

    python -m benchmarks.experiments.imbalance.run

Tunes each learner at one cell on seeds of its own, freezes the settings, and runs all cells. Stops and resumes; writes
one Parquet and tuning.json to benchmarks/results/imbalance/.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer

from benchmarks.experiments import shared
from benchmarks.experiments.arms import ranked, stacks
from benchmarks.experiments.bandit_rows import ARMS, cells
from benchmarks.experiments.labellings import resumable

SHARES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
COVERAGE, FLIPS, KINDS = (1.0, 0.1), (0.0, 0.1, 0.3), ("labels", "rows")
CENTRE = {"share": 0.25, "kind": "labels", "coverage": 0.5, "flips": 0.1}
SEEDS, TUNING_SEEDS = 10, range(100, 105)


def tune(parts: Path, function: str) -> dict[str, list[dict[str, Any]]]:
    """Return each learned arm's settings on a bandit with their mean scores at the centre cell, the best first."""
    return ranked(resumable(parts, _tuning(function), cells), "score")


def _tuning(function: str) -> Iterator[dict[str, Any]]:
    for arm, found in ARMS.items():
        for settings in stacks(found.grid):
            if len(found.grid) > 1:
                yield {
                    "function": function, "name": arm, "grid": [CENTRE], "seeds": list(TUNING_SEEDS),
                    "settings": settings,
                }  # fmt: skip


def block(
    function: str, tuned: dict[str, list[dict[str, Any]]], coverage: float, seeds: int
) -> Iterator[dict[str, Any]]:
    """Yield the chunks of one coverage: all shares of an arm at one kind and rate of flips are a stack."""
    for arm, kind, flips in itertools.product(ARMS, KINDS, FLIPS):
        grid = [{"share": share, "kind": kind, "coverage": coverage, "flips": flips} for share in SHARES]
        setting = tuned[arm][0]["setting"] if arm in tuned else {}
        yield {"function": function, "name": arm, "grid": grid, "seeds": list(range(seeds)), "settings": [setting]}


def main(
    out: Annotated[Path, typer.Option(help="Where to write.")] = shared.RESULTS / "imbalance",
    parts: Annotated[Path, typer.Option(help="Folder of finished parts, to resume from.")] = Path("imbalance-parts"),
    functions: Annotated[str, typer.Option(help="Bandits, comma-separated.")] = "rosenbrock,schwefel",
    seeds: Annotated[int, typer.Option(min=2, help="Runs a cell: label draw and training seed both differ.")] = SEEDS,
) -> None:
    """Tune, run every cell and write the raw scores, after each coverage of a bandit."""
    out.mkdir(parents=True, exist_ok=True)
    for function in functions.split(","):
        tuned = tune(parts, function)
        (out / f"tuning-{function}.json").write_text(json.dumps(tuned, indent=1) + "\n")
        frames = []
        for coverage in COVERAGE:
            frames.append(resumable(parts, block(function, tuned, coverage, seeds), cells))
            shared.save(pl.concat(frames, how="diagonal_relaxed"), out / f"{function}.parquet")


if __name__ == "__main__":
    shared.script(main)
