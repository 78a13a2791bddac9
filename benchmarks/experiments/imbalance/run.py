"""The map: accepted share × coverage × flips × kind of imbalance, every learner beside the filtered clones.

    python -m benchmarks.experiments.imbalance.run

On a bandit at a fine grid, on the tiny language at a coarse one. Tunes each learner at one cell on seeds of its own,
freezes the settings, and runs all cells. Stops and resumes; writes one Parquet and one tuning.json a domain to
benchmarks/results/imbalance/.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer

from benchmarks.experiments import bandit_rows, shared, tiny_rows
from benchmarks.experiments.arms import Arm, ranked, stacks
from benchmarks.experiments.labellings import resumable

KINDS = ("labels", "rows")
CENTRE = {"share": 0.25, "kind": "labels", "coverage": 0.5, "flips": 0.1}


@dataclass(frozen=True)
class Domain:
    """Learners, how they are trained and scored in cells, and the grid."""

    arms: Mapping[str, Arm]
    cells: Callable[..., pl.DataFrame]
    """As `bandit_rows.cells`."""
    shares: tuple[float, ...] = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
    coverage: tuple[float, ...] = (1.0, 0.1)
    flips: tuple[float, ...] = (0.0, 0.1, 0.3)
    seeds: int = 10
    tuning_seeds: int = 5


BANDIT = Domain(bandit_rows.ARMS, bandit_rows.cells)
LANGUAGE = Domain(tiny_rows.ARMS, tiny_rows.cells, (0.1, 0.5, 0.9), (1.0,), (0.0, 0.1), seeds=3, tuning_seeds=2)
DOMAINS = {"rosenbrock": BANDIT, "schwefel": BANDIT, "sphere": BANDIT, "language": LANGUAGE}


def tune(parts: Path, name: str) -> dict[str, list[dict[str, Any]]]:
    """Return each learned arm's settings in a domain with their mean scores at the centre cell, the best first."""
    domain = DOMAINS[name]
    seeds = list(range(100, 100 + domain.tuning_seeds))
    chunks = [
        {"function": name, "name": arm, "grid": [CENTRE], "seeds": seeds, "settings": settings}
        for arm, found in domain.arms.items()
        for settings in stacks(found.grid)
        if len(found.grid) > 1
    ]
    return ranked(resumable(parts, chunks, domain.cells), "score")


def block(
    name: str, tuned: Mapping[str, list[dict[str, Any]]], coverage: float, arms: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield the chunks of one coverage: all shares of an arm at one kind and rate of flips are a stack."""
    domain = DOMAINS[name]
    for arm, kind, flips in itertools.product(arms, KINDS, domain.flips):
        grid = [{"share": share, "kind": kind, "coverage": coverage, "flips": flips} for share in domain.shares]
        setting = tuned[arm][0]["setting"] if arm in tuned else {}
        yield {
            "function": name, "name": arm, "grid": grid, "seeds": list(range(domain.seeds)), "settings": [setting],
        }  # fmt: skip


def main(
    out: Annotated[Path, typer.Option(help="Where to write.")] = shared.RESULTS / "imbalance",
    parts: Annotated[Path, typer.Option(help="Folder of finished parts, to resume from.")] = Path("imbalance-parts"),
    domains: Annotated[str, typer.Option(help="Bandits, or language; comma-separated.")] = "rosenbrock",
    coverage: Annotated[str, typer.Option(help="Shares of the labels kept, comma-separated; default: all.")] = "",
    arms: Annotated[str, typer.Option(help="Learners, semicolon-separated; default: all.")] = "",
) -> None:
    """Tune, run every cell and write the raw scores, after each coverage of a domain."""
    out.mkdir(parents=True, exist_ok=True)
    for name in domains.split(","):
        tuned = tune(parts, name)
        (out / f"tuning-{name}.json").write_text(json.dumps(tuned, indent=1) + "\n")
        frames = []
        chosen = arms.split(";") if arms else list(DOMAINS[name].arms)
        for kept in map(float, coverage.split(",")) if coverage else DOMAINS[name].coverage:
            frames.append(resumable(parts, block(name, tuned, kept, chosen), DOMAINS[name].cells))
            shared.save(pl.concat(frames, how="diagonal_relaxed"), out / f"{name}.parquet")


if __name__ == "__main__":
    shared.script(main)
