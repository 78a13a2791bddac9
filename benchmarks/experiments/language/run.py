"""Reward against KL on language models: β swept for every method, and PMPO under other divergences.

python -m benchmarks.experiments.language.run                      everything under benchmarks/results/language
python -m benchmarks.experiments.language.run --part tiny --output elsewhere

It goes through the runner of all benchmarks: finished runs are not repeated, interrupted ones are resumed, and
`pmpo-offline report benchmarks/results/language/tiny` computes the scores again.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.experiments import shared
from benchmarks.experiments.language import report
from pmpo_offline.benchmark import bench
from pmpo_offline.cli.console import working
from pmpo_offline.runtime.errors import unknown

RESULTS = shared.RESULTS / "language"
SUITE = RESULTS / "sweep.toml"


@dataclass(frozen=True)
class Part:
    """A table of the sweep."""

    dataset: str
    settings: Mapping[str, Mapping[str, Sequence[Any]]]
    """Values by algorithm and setting; an algorithm without any runs as it is declared."""
    seeds: int
    episodes: int
    updates: int | None = None
    """If fewer than the algorithms declare."""
    place: str = "sentiment"
    """Folder of its raw scores: parts that have rows in common share one."""


# A multiple of the bound where there is one: at 1 the rejects' own coefficient in the objective is zero.
BOUNDED = ["0.25x", "0.75x", "1.05x", "2x", "4x"]
DIVERGENCES = {"divergence": ["forward", "reverse", "alpha", "renyi"], "order": [0.5], "beta": [0.525]}
PARTS = {
    "tiny": Part(
        "language/tiny-v0",
        {
            "bc": {},
            "bc-accepted": {},
            "accept-bc": {"beta": [0.0, 0.25, 1.0, 4.0]},
            "pmpo": {"beta": BOUNDED},
            "reject-bc": {"beta": BOUNDED},
            "dpo": {"beta": [0.03, 0.1, 0.3, 1.0]},
            "ipo": {"beta": [0.03, 0.1, 0.3, 1.0]},
            "nca": {"beta": [0.03, 0.1, 0.3, 1.0]},
            "kto": {"beta": [0.03, 0.1, 0.3, 1.0]},
            "bco": {"beta": [0.03, 0.1, 0.3, 1.0]},
        },
        seeds=5,
        episodes=400,
        place="tiny",
    ),
    "sentiment": Part(
        "language/sentiment-v0",
        {
            "bc": {},
            "bc-accepted": {},
            "pmpo": {"beta": ["0.25x", "0.5x", "1.05x"]},
            "reject-bc": {"beta": ["0.1x", "0.5x", "1.05x"]},
            "dpo": {"beta": [0.1, 1.0]},
            "kto": {"beta": [0.1, 1.0]},
            "nca": {"beta": [0.1]},
            "ipo": {"beta": [0.1]},
            "bco": {"beta": [0.1]},
        },
        seeds=3,
        episodes=100,
        updates=40,
    ),
    "tiny-divergences": Part(
        "language/tiny-v0",
        {"bc": {}, "pmpo": DIVERGENCES},
        seeds=5,
        episodes=400,
        place="tiny",
    ),
    "divergences": Part(
        "language/sentiment-v0",
        {"bc": {}, "pmpo": DIVERGENCES},
        seeds=3,
        episodes=100,
        updates=40,
    ),
}


def run(name: str, output: Path, workers: int | None, home: Path | None) -> None:
    """Run the missing cells of a part, and write its table and its picture."""
    part = PARTS[name]
    done = bench(
        str(SUITE),
        algos=list(part.settings),
        datasets=[part.dataset],
        settings={algorithm: values for algorithm, values in part.settings.items() if values},
        seeds=part.seeds,
        episodes=part.episodes,
        updates=part.updates,
        output=output / part.place,
        workers=workers,
        home=home,
    )
    for failure in done.failures:
        print(f"error: {failure}", file=sys.stderr)
    report.write(output / part.place, name, done.rows)


def main(
    part: Annotated[list[str] | None, typer.Option(help=f"{', '.join(PARTS)}; default: all.")] = None,
    output: Annotated[Path, typer.Option(help="Directory of results; cells found there are not run again.")] = RESULTS,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes, of one thread each.")] = None,
    home: Annotated[Path | None, typer.Option(help="Where datasets and models are.")] = None,
) -> None:
    """Sweep β of every method on language models."""
    with working():
        for name in part or PARTS:
            if name not in PARTS:
                raise unknown("part", name, PARTS)
            run(name, output, workers, home)


if __name__ == "__main__":
    shared.script(main)
