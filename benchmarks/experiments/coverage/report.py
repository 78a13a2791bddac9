"""The page of the coverage experiment, from its raw scores.

python -m benchmarks.experiments.coverage.report
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from benchmarks.experiments import shared
from benchmarks.experiments.arms import FILTERS
from benchmarks.experiments.coverage.run import ARMS
from benchmarks.experiments.margins import Design, margins

CELL = ("rejects", "accepts", "noise")
DESIGN = Design(cell=CELL, unit="draw", score="success", pooled=True)
PATTERN = Design(cell=("rejects", "accepts"), unit="draw", score="success", pooled=True)
LEARNED = tuple(arm for arm in ARMS if arm not in (*FILTERS, "bc"))


def main(folder: Annotated[Path, typer.Option(help="Of raw.parquet.")] = shared.RESULTS / "coverage") -> None:
    """Write report.md and cells.png."""
    raw = pl.read_parquet(folder / "raw.parquet")
    tuned = json.loads((folder / "tuning.json").read_text())
    labelled = raw.filter(pl.col("arm") != "bc")
    table = margins(labelled, DESIGN)
    picture(table).savefig(folder / "cells.png", dpi=130)
    (folder / "report.md").write_text(page(raw, table, tuned), encoding="utf-8")


def page(raw: pl.DataFrame, table: pl.DataFrame, tuned: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return the tables."""
    labelled = raw.filter(pl.col("arm") != "bc")
    clone = raw.filter(pl.col("arm") == "bc")["success"]
    plain = margins(labelled, Design(cell=CELL, unit="draw", score="success"), comparisons=1)
    draws = raw["draw"].n_unique()
    lost = raw.filter(pl.col("diverged"))
    text = [
        f"## Numbers\n\n{len(raw)} runs, {draws} label draws, each with its own training seed; success on 60 held-out "
        f"layouts. The clone that sees no labels succeeds in {clone.mean():.2f} of its episodes. "
        f"{len(lost)} runs ended with weights that are not finite.",
        "![Success of every arm in every cell](cells.png)",
        "### The better filter, and the margins over it\n\nMean over draws; the intervals are corrected for "
        f"{table.select(CELL).unique().height} cells, with the variance pooled over them, as the protocol says. "
        "**Bold**: wins. *Italic*: loses.",
        "\n".join(_table(table)),
        "### By pattern of coverage, both noise rates together",
        "\n".join(_table(margins(labelled, PATTERN))),
        "### The same cells with plain t intervals of the paired differences, not corrected",
        "\n".join(_table(plain)),
        "### Settings chosen at the tuning cell",
        "\n".join(
            shared.table(
                ("arm", "chosen", "success there", "of the others"),
                [
                    (
                        arm,
                        _setting(rows[0]["setting"]),
                        f"{rows[0]['success']:.2f}",
                        ", ".join(f"{row['success']:.2f} ({_setting(row['setting'])})" for row in rows[1:]),
                    )
                    for arm, rows in tuned.items()
                ],
            )
        ),
        f"Reported runs: {raw['cpu_seconds'].sum() / 3600:.2f} CPU-hours. " + shared.hardware("torch", "mujoco"),
    ]
    return "# Who must be labelled?\n\n[protocol](protocol.md), [findings](README.md)\n\n" + "\n\n".join(text) + "\n"


def _setting(setting: Mapping[str, Any]) -> str:
    names = {"alpha": "α", "beta": "β", "multiple": "β / bound", "rate": "rate"}
    return ", ".join(f"{names[name]} {value:g}" for name, value in setting.items())


def _table(table: pl.DataFrame) -> list[str]:
    cell = [name for name in CELL if name in table.columns]
    lines = []
    filters = [name for name in FILTERS if name in table["arm"].to_list()]
    for values, rows in table.sort(*cell, descending=[True, True, False][: len(cell)]).group_by(
        *cell, maintain_order=True
    ):
        by_arm = {row["arm"]: row for row in rows.iter_rows(named=True)}
        shown = [f"{by_arm[name]['mean']:.2f}" for name in filters]
        lines.append([*(f"{value:g}" for value in values), *shown, *(_margin(by_arm[arm]) for arm in LEARNED)])
    head = {"rejects": "c_r", "accepts": "c_a", "noise": "ε"}
    return shared.table([*(head[name] for name in cell), *filters, *LEARNED], lines, "r")


def _margin(row: Mapping[str, Any]) -> str:
    text = f"{row['margin']:+.2f} ({row['low']:+.2f} – {row['high']:+.2f})"
    return {"wins": f"**{text}**", "loses": f"*{text}*"}.get(row["verdict"], text)


def picture(table: pl.DataFrame) -> Figure:
    """Return every arm's success in every cell, coloured by its margin over the better filter."""
    cells = table.select(CELL).unique().sort(*CELL, descending=[True, True, False])
    order = [*FILTERS, *LEARNED]
    figure = Figure(figsize=(2.6 + 0.54 * len(cells), 4.2), layout="constrained")
    axes = figure.subplots()
    norm, where = TwoSlopeNorm(0, -0.6, 0.6), {values: x for x, values in enumerate(cells.iter_rows())}
    for row in table.iter_rows(named=True):
        x, y = where[tuple(row[name] for name in CELL)], order.index(row["arm"])
        best = max(
            table.filter(
                (pl.col("arm").is_in(FILTERS)) & pl.all_horizontal(pl.col(name) == row[name] for name in CELL)
            )["mean"].to_list()
        )
        margin = row["mean"] - best
        axes.add_patch(_square(x, y, "RdBu", norm(max(-0.6, min(0.6, margin)))))
        weight = "bold" if row["verdict"] == "wins" and row["arm"] in LEARNED else "normal"
        dark = abs(margin) > 0.4
        axes.text(x, y, f"{row['mean']:.2f}", ha="center", va="center", fontsize=9, weight=weight,
                  color="white" if dark else "black")  # fmt: skip
    axes.set(xlim=(-0.5, len(cells) - 0.5), ylim=(len(order) - 0.5, -0.5))
    axes.set_yticks(range(len(order)), order)
    axes.axhline(len(FILTERS) - 0.5, color="black", linewidth=1)
    names = [f"{100 * n:g}" for *_, n in cells.iter_rows()]
    axes.set_xticks(range(len(cells)), names)
    axes.tick_params(length=0)
    for row, label in ((0.22, "labels flipped, %"), (0.7, "successes labelled, %"), (1.2, "failures labelled, %")):
        axes.text(-0.7, len(order) - 0.5 + row, label, ha="right", va="center", fontsize=9)
    for x, (rejects, accepts, _) in enumerate(cells.iter_rows()):
        if x % 2 == 0:
            axes.text(x + 0.5, len(order) + 0.2, f"{100 * accepts:g}", ha="center", va="center", fontsize=9)
        if x % 4 == 0:
            axes.text(
                x + 1.5, len(order) + 0.7, f"{100 * rejects:g}", ha="center", va="center", fontsize=9, weight="bold"
            )
            axes.axvline(x - 0.5, color="black", linewidth=1)
    axes.set_title("Success; blue: above the better filtered clone, red: below it", fontsize=10)
    return figure


def _square(x: float, y: float, colours: str, value: float) -> Any:
    import matplotlib as mpl
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=mpl.colormaps[colours](value), edgecolor="white")


if __name__ == "__main__":
    shared.script(main)
