"""What the raw scores of the suite `control` come to over all its datasets: the tables of its README.

    python benchmarks/control_summary.py        after `pmpo-offline bench control`; writes README.md beside findings.md

Learners are compared on whole groups of datasets: the training records, the sets of one medium policy, and both. The
interquartile mean is over all runs of a group; its interval resamples each dataset's runs on their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import typer

from pmpo_offline.benchmark.results import Results
from pmpo_offline.evaluation.statistics import Floats, Interval, bootstrap, iqm, probability_of_improvement

RESULTS = Path(__file__).parent / "results" / "control"
HALF, BOUND, SHUFFLED = "pmpo 0.5x", "pmpo 1.05x", "pmpo 0.5x, shuffled"
BASELINES = ("bc", "bc-accepted")
LABELS = (*BASELINES, "accept-bc", HALF, BOUND, SHUFFLED, "kto", "bco", "dpo", "ipo", "nca", "mpo", "awr")
REWARDS = ("top-bc", "crr", "td3-bc", "iql")
"""Learners from rewards, which see no labels."""
GROUPS: dict[str, Callable[[str], bool]] = {
    "all": lambda dataset: True,
    "records": lambda dataset: "-replay" in dataset,
    "medium": lambda dataset: "-replay" not in dataset,
}


def scores(raw: pl.DataFrame) -> dict[str, dict[str, Floats]]:
    """Return the normalized scores of the runs, (seeds,), by arm and dataset; arms in the order of the tables."""
    factor = (pl.col("beta") / pl.col("beta_min")).round(2)
    arm = pl.when(pl.col("algo") == "pmpo").then(pl.format("pmpo {}x", factor)).otherwise("algo")
    score = 100 * (pl.col("return") - pl.col("reference_min")) / (pl.col("reference_max") - pl.col("reference_min"))
    runs = (
        raw.with_columns(arm=pl.when("shuffled").then(pl.format("{}, shuffled", arm)).otherwise(arm), score=score)
        .group_by("arm", "dataset", "seed")
        .agg(pl.col("score").mean())
        .sort("arm", "dataset", "seed")
    )
    found: dict[str, dict[str, Floats]] = {}
    for (name, dataset), mine in runs.group_by("arm", "dataset", maintain_order=True):
        found.setdefault(str(name), {})[str(dataset)] = mine["score"].to_numpy()
    return {name: found[name] for name in (*LABELS, *REWARDS) if name in found}


def aggregates(arms: dict[str, dict[str, Floats]]) -> list[str]:
    """Return the table of groups: IQMs, and how likely a run beats one of either clone on the same data."""
    head = "".join(f" {group} | 95 % |" for group in GROUPS)
    better = "".join(f" > {name}, {group} |" for group in ("records", "medium") for name in BASELINES)
    lines = [f"| |{head}{better}", "|---|" + "---:|---|" * len(GROUPS) + "---:|" * 4]
    every = set(arms["bc"])
    for name, mine in arms.items():
        if set(mine) != every:
            continue  # of a part of the datasets a mean compares with no other
        cells = [_cell(bootstrap(_of(mine, group))) for group in GROUPS]
        for group in ("records", "medium"):
            for other in BASELINES:
                wins = probability_of_improvement(_of(mine, group), _of(arms[other], group))
                cells.append("–" if other == name else f"{wins.estimate:.2f}")
        lines.append(f"| {_starred(name)} | {' | '.join(cells)} |")
    return lines


def by_dataset(arms: dict[str, dict[str, Floats]]) -> list[str]:
    """Return the table of IQMs, a row a dataset; the best of those that learn from labels in bold."""
    lines = [f"| | {' | '.join(map(_starred, arms))} |", "|---|" + "---:|" * len(arms)]
    for dataset in sorted(arms["bc"]):
        values = {name: round(float(iqm(mine[dataset]))) for name, mine in arms.items() if dataset in mine}
        best = max(value for name, value in values.items() if name in LABELS)
        cells = [_shown(values.get(name), name in LABELS and values.get(name) == best) for name in arms]
        lines.append(f"| {dataset.removesuffix('-v0')} | {' | '.join(cells)} |")
    return lines


def _of(mine: dict[str, Floats], group: str) -> Sequence[Floats]:
    return [values for dataset, values in sorted(mine.items()) if GROUPS[group](dataset)]


def _cell(interval: Interval) -> str:
    return f"{interval.estimate:.1f} | {interval.low:.1f} – {interval.high:.1f}"


def _shown(value: int | None, best: bool) -> str:
    return "" if value is None else f"**{value}**" if best else str(value)


def _starred(name: str) -> str:
    return f"{name}*" if name in REWARDS else name


def main(results: Annotated[Path, typer.Option(help="Where raw/ and findings.md are.")] = RESULTS) -> None:
    """Write README.md: findings.md and the tables."""
    arms = scores(Results(results).read(None))
    runs = int(np.median([len(values) for values in arms["bc"].values()]))
    text = (results / "findings.md").read_text().rstrip()
    page = [
        text,
        "",
        "## Groups of datasets",
        "",
        f"IQMs over the runs ({runs} a dataset) of all datasets of a group, with 95 % bootstrap intervals over runs; "
        "then how likely a run beats one of `bc`, or of `bc-accepted`, on the same data. Stars: learns from rewards, "
        "sees no labels.",
        "",
        *aggregates(arms),
        "",
        "## Every dataset",
        "",
        "IQMs over runs; intervals are in [report.md](report.md). Bold: the best that learned from labels.",
        "",
        *by_dataset(arms),
        "",
    ]
    (results / "README.md").write_text("\n".join(page))


if __name__ == "__main__":
    typer.run(main)
