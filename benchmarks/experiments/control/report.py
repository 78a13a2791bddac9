"""Tables over all datasets of the suite `control`, from its raw scores.

    python -m benchmarks.experiments.control.report     after `pmpo-offline bench control`; writes README.md

Findings come from findings.md beside it.

Learners are compared on whole groups of datasets: the training records, the sets of one medium policy, and both. The
interquartile mean is over all runs of a group; its interval resamples each dataset's runs on their own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import typer

from benchmarks.experiments import shared
from benchmarks.experiments.figures import pooled, run_scores
from benchmarks.experiments.margins import t_interval
from pmpo_offline.benchmark.results import Results
from pmpo_offline.evaluation.statistics import Floats, iqm

RESULTS = shared.RESULTS / "control"
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
    found = run_scores(raw, pl.when("shuffled").then(pl.format("{}, shuffled", arm)).otherwise(arm))
    return {name: found[name] for name in (*LABELS, *REWARDS) if name in found}


def aggregates(arms: dict[str, dict[str, Floats]]) -> list[str]:
    """Return the table of groups: IQMs, and how likely a run beats one of either clone on the same data."""
    groups = {name: pooled(arms, list(filter(chosen, arms["bc"])), BASELINES) for name, chosen in GROUPS.items()}
    header = ["", *(title for group in GROUPS for title in (group, "95 %"))]
    header += [f"> {name}, {group}" for group in ("records", "medium") for name in BASELINES]
    lines = []
    for name in groups["all"]:
        cells = [_starred(name)]
        for interval in (group[name].iqm for group in groups.values()):
            cells += [f"{interval.estimate:.1f}", f"{interval.low:.1f} – {interval.high:.1f}"]
        for group in ("records", "medium"):
            better = groups[group][name].better
            cells += [f"{better[other].estimate:.2f}" if other in better else "–" for other in BASELINES]
        lines.append(cells)
    return shared.table(header, lines, "l" + "rl" * len(GROUPS) + "r")


def gains(arms: dict[str, dict[str, Floats]]) -> list[str]:
    """Return the table of gains over cloning the accepts, with t intervals over datasets."""
    header = ["", *(title for group in ("records", "medium") for title in (group, "95 %"))]
    lines = []
    for name in arms:
        if name in BASELINES or arms[name].keys() != arms["bc-accepted"].keys():
            continue
        cells = [_starred(name)]
        for group in ("records", "medium"):
            datasets = sorted(filter(GROUPS[group], arms["bc-accepted"]))
            gain = t_interval([arms[name][each].mean() - arms["bc-accepted"][each].mean() for each in datasets])
            text = f"{gain.estimate:+.1f}"
            cells += [f"**{text}**" if gain.low > 0 or gain.high < 0 else text, f"{gain.low:+.1f} – {gain.high:+.1f}"]
        lines.append(cells)
    return shared.table(header, lines, "l" + "rl" * 2)


def by_dataset(arms: dict[str, dict[str, Floats]]) -> list[str]:
    """Return the table of IQMs, a row a dataset; the best of those that learn from labels in bold."""
    lines = []
    for dataset in sorted(arms["bc"]):
        values = {name: round(float(iqm(mine[dataset]))) for name, mine in arms.items() if dataset in mine}
        best = max(value for name, value in values.items() if name in LABELS)
        cells = [_shown(values.get(name), name in LABELS and values.get(name) == best) for name in arms]
        lines.append([dataset.removesuffix("-v0"), *cells])
    return shared.table(["", *map(_starred, arms)], lines, "lr")


def _shown(value: int | None, best: bool) -> str:
    return "" if value is None else f"**{value}**" if best else str(value)


def _starred(name: str) -> str:
    return f"{name}*" if name in REWARDS else name


def main(results: Annotated[Path, typer.Option(help="Where raw/ and findings.md are.")] = RESULTS) -> None:
    """Write README.md: findings.md and the tables."""
    arms = scores(Results(results).read(None))
    runs = int(np.median([len(values) for values in arms["bc"].values()]))
    page = [
        "## Groups of datasets",
        "",
        f"IQMs over the runs ({runs} a dataset) of all datasets of a group, with 95 % intervals over runs; "
        "then how likely a run beats one of `bc`, or of `bc-accepted`, on the same data. Stars: learns from rewards, "
        "sees no labels.",
        "",
        *aggregates(arms),
        "",
        "## Gains over a clone of the accepts",
        "",
        "Mean difference of the mean scores, with 95 % t intervals over the nine *datasets* of a group: what would "
        "hold for another task. Not corrected for the number of learners; bold excludes 0. Every step is labelled, so "
        "that a clone of all but the rejects is the clone of the accepts.",
        "",
        *gains(arms),
        "",
        "## Every dataset",
        "",
        "IQMs over runs; intervals are in [report.md](report.md). Bold: the best that learned from labels.",
        "",
        *by_dataset(arms),
        "",
    ]
    (results / "README.md").write_text(shared.with_findings(results, "Control", "\n".join(page)))


if __name__ == "__main__":
    shared.script(main)
