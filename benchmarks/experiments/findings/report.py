"""Margins over the better filtered clone in the committed suites, from their raw scores; no training.

    python -m benchmarks.experiments.findings.report

Writes benchmarks/results/margins.md, which docs/findings.md rests on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import polars as pl
import typer

from benchmarks.experiments import shared
from benchmarks.experiments.arms import FILTERS
from benchmarks.experiments.margins import Design, margins
from pmpo_offline.benchmark.results import Results
from pmpo_offline.benchmark.table import runs

SUITES = {
    "quick": "Stacking, 10 % accepted by labels",
    "bandits/offline": "Bandits in ten dimensions, by labels",
    "language/tiny": "The tiny language, as collected (59 % accepted)",
    "language/sentiment": "SmolLM2 on sentiment, as collected (half accepted)",
}
DESIGN = Design(cell=("dataset", "imbalance"), unit="seed", score="score")


def main(results: Annotated[Path, typer.Option(help="The committed results.")] = shared.RESULTS) -> None:
    """Write margins.md."""
    text = [
        "# Margins over the better filtered clone",
        "[findings](../../docs/findings.md). From the raw scores of suites that hold a filtered clone: normalized "
        "points, paired by training seed, with t intervals corrected for the rows of a suite. Bold: wins; italic: "
        "loses. The suites have one label draw each. Where `bc-unrejected` was not run every row is labelled and it is "
        "the clone of the accepts. Control is on [its own page](control/README.md), where tasks vary.",
    ]
    for name, title in SUITES.items():
        text += [f"## {title} ([{name}]({name}/report.md))", "\n".join(table(runs(Results(results / name).read(None))))]
    (results / "margins.md").write_text("\n\n".join(text) + "\n", encoding="utf-8")


def table(scores: pl.DataFrame) -> list[str]:
    """Return the margin of every learner and setting of a suite."""
    strength = pl.when(pl.col("algo").is_in(FILTERS) | pl.col("beta").is_null()).then(pl.lit(""))
    strength = strength.otherwise(pl.format(", β {}", pl.col("beta").round(3)))
    shuffled = pl.when("shuffled").then(pl.lit(" (shuffled)")).otherwise(pl.lit(""))
    divergence = pl.col("settings").str.json_path_match("$.divergence").fill_null("behavior")
    raw = scores.filter(divergence.is_in(["behavior", "forward"])).with_columns(
        arm=pl.concat_str("algo", strength, shuffled)
    )
    learners = raw.filter(~pl.col("algo").is_in([*FILTERS, "bc"]))
    found = margins(raw, DESIGN, comparisons=learners.select("dataset", "imbalance", "arm").unique().height)
    lines = []
    for row in found.sort("dataset", "imbalance", "mean", descending=[False, False, True]).iter_rows(named=True):
        share = "" if row["imbalance"] is None else f", {100 * float(row['imbalance']):g} %"
        cells = [f"{row['dataset']}{share}", row["arm"], str(row["runs"]), f"{row['mean']:.1f}"]
        if row["arm"] in (*FILTERS, "bc") or row.get("margin") is None:
            lines.append([*cells, "", ""])
            continue
        text = f"{row['margin']:+.1f} ({row['low']:+.1f} – {row['high']:+.1f})"
        mark = {"wins": "**", "loses": "*"}.get(row["verdict"], "")
        lines.append([*cells, row["filter"], f"{mark}{text}{mark}"])
    return shared.table(("data", "learner", "runs", "score", "better filter", "margin"), lines, "llrrlr")


if __name__ == "__main__":
    shared.script(main)
