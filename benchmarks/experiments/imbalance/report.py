"""The page of the map, from its raw scores.

python -m benchmarks.experiments.imbalance.report
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
import typer
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from benchmarks.experiments import shared
from benchmarks.experiments.arms import FILTERS
from benchmarks.experiments.bandit_rows import ARMS
from benchmarks.experiments.imbalance.run import KINDS
from benchmarks.experiments.margins import Design, margins

DESIGN = Design(cell=("kind", "coverage", "flips", "share"), unit="seed", score="score")
LIMIT = 40.0
"""Margins beyond this have one colour."""


def main(folder: Annotated[Path, typer.Option(help="Of the raw scores.")] = shared.RESULTS / "imbalance") -> None:
    """Write report.md and a picture a domain."""
    parts, spent = [], 0.0
    for path in sorted(folder.glob("*.parquet")):
        raw = pl.read_parquet(path)
        spent += float(raw["cpu_seconds"].sum())
        table = margins(raw, DESIGN)
        picture(table, path.stem.capitalize()).savefig(folder / f"{path.stem}.png", dpi=120)
        parts.append(section(path.stem, raw, table, json.loads((folder / f"tuning-{path.stem}.json").read_text())))
    text = (
        "# The map\n\n[findings](../../../docs/findings.md)\n\n"
        "Margins are over the better of the two filtered clones, in normalized points (0 a random action, or the model "
        "before training; 100 the best). In each run of a cell the label draw and the training seed both differ; "
        "paired t intervals, corrected for the cells of a learner. Imbalance by *labels*: surplus labels are dropped "
        "and their rows stay, unlabelled. By *rows*: the surplus rows are dropped. Every learner has one setting, "
        "chosen at 25 % accepted by labels, half of the labels kept, 10 % flipped.\n\n"
    )
    made = f"Made in {spent / 3600:.2f} CPU-hours. " + shared.hardware("torch")
    (folder / "report.md").write_text(text + "\n\n".join(parts) + f"\n\n{made}\n", encoding="utf-8")


def section(name: str, raw: pl.DataFrame, table: pl.DataFrame, tuned: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return a domain's table: where each learner wins and loses, and its setting."""
    lines = []
    flipped = sorted(raw["flips"].unique())
    for arm in learned(raw):
        mine = table.filter((pl.col("arm") == arm) & pl.col("margin").is_not_null())
        cells = [arm, json.dumps(tuned[arm][0]["setting"]).strip("{}").replace('"', "")]
        for kind, flips in itertools.product(KINDS, flipped):
            part = mine.filter((pl.col("kind") == kind) & (pl.col("flips") == flips))
            wins, losses = ((part["verdict"] == verdict).sum() for verdict in ("wins", "loses"))
            cells.append(f"{wins} / {losses} of {len(part)}")
        worst, best = mine["margin"].min(), mine["margin"].max()
        lines.append([*cells, f"{mine['margin'].median():+.0f} ({worst:+.0f} – {best:+.0f})"])
    head = [f"{kind}, {flips:g} flipped" for kind, flips in itertools.product(KINDS, flipped)]
    diverged = int(raw["diverged"].sum())
    return (
        f"## {name.capitalize()}\n\nCells won / lost against the better filter, and the median margin (worst – best). "
        f"{len(raw):,} runs, {diverged} of which ended with weights that are not finite.\n\n"
        + "\n".join(shared.table(("learner", "setting", *head, "margin"), lines, "llr"))
        + f"\n\n![Margins on {name}]({name}.png)"
    )


def learned(table: pl.DataFrame) -> list[str]:
    """Return the learners that are no clones, in the order of their declaration."""
    present = set(table["arm"])
    return [arm for arm in ARMS if arm in present and arm not in (*FILTERS, "bc")]


def picture(table: pl.DataFrame, title: str) -> Figure:
    """Return a heat map a learner, kind and coverage: shares across, flips down; dots are wins, crosses losses."""
    shares, rates, coverages = (sorted(table[name].unique()) for name in ("share", "flips", "coverage"))
    columns, arms = list(itertools.product(KINDS, reversed(coverages))), learned(table)
    width = 2.2 + len(columns) * (0.4 + 0.24 * len(shares))
    figure = Figure(figsize=(max(9.0, width), (0.5 + 0.22 * len(rates)) * len(arms) + 1.3), layout="constrained")
    grid = figure.subplots(len(arms), len(columns), sharex=True, sharey=True, squeeze=False)
    norm = TwoSlopeNorm(0, -LIMIT, LIMIT)
    for axes_row, arm in zip(grid, arms, strict=True):
        for axes, (kind, coverage) in zip(axes_row, columns, strict=True):
            part = table.filter((pl.col("arm") == arm) & (pl.col("kind") == kind) & (pl.col("coverage") == coverage))
            field = np.full((len(rates), len(shares)), np.nan)
            for row in part.iter_rows(named=True):
                if row["margin"] is None:
                    continue
                y, x = rates.index(row["flips"]), shares.index(row["share"])
                field[y, x] = row["margin"]
                mark = {"wins": ".", "loses": "x"}.get(row["verdict"])
                if mark:
                    axes.plot(x, y, mark, color="black", markersize=4, markeredgewidth=0.8)
            shown = axes.imshow(np.clip(field, -LIMIT, LIMIT), cmap="RdBu", norm=norm, aspect="auto")
            axes.set_facecolor("#DDDDDD")
            axes.set_xticks(range(len(shares)), [f"{100 * share:g}" for share in shares], fontsize=7)
            axes.set_yticks(range(len(rates)), [f"{100 * rate:g}" for rate in rates], fontsize=7)
        axes_row[0].set_ylabel(arm.replace(", ", ",\n"), fontsize=9)
    for axes, (kind, coverage) in zip(grid[0], columns, strict=True):
        axes.set_title(f"by {kind}, {100 * coverage:g} % of the labels kept", fontsize=9)
    figure.supxlabel("accepted share of the labels, %", fontsize=9)
    figure.supylabel("% of labels flipped", fontsize=9)
    bar = figure.colorbar(shown, ax=grid, shrink=0.5, aspect=30, pad=0.01, extend="both")
    bar.set_label("margin over the better filtered clone")
    figure.suptitle(f"{title}: blue is above both filtered clones, red below the better one; dot: wins, cross: loses")
    return figure


if __name__ == "__main__":
    shared.script(main)
