"""Does β as `doctor` suggests it, below the bound where states are seen, beat the fixed default on other control sets?

    python -m benchmarks.experiments.suggestion.control

Follows benchmarks/results/suggestion/protocol.md. Stops and resumes; writes control.parquet and control.md beside it.
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
from benchmarks.experiments.arms import FILTERS
from benchmarks.experiments.domains.report import paired
from benchmarks.experiments.domains.run import SEEDS, SUGGESTED_AT, make
from benchmarks.experiments.domains.suggested import BELOW, BOTH, FIXED
from benchmarks.experiments.labellings import resumable
from benchmarks.experiments.margins import t_interval
from benchmarks.experiments.suggestion.run import OUT

DOMAINS = ("finger", "walker")
"""Sets that nothing of the rule was made on."""
CELL = ("share", "coverage", "flips")


def chunks() -> Iterator[dict[str, Any]]:
    """Yield the arguments of `domains.run.make`: a cell and learner at a time."""
    settings = [{"suggested": name} for name in (FIXED, BELOW, BOTH)]
    for domain, cell in itertools.product(DOMAINS, SUGGESTED_AT):
        for arm in ("PMPO AR", *FILTERS):
            yield {"domain": domain, "sweep": "suggestion", "arm": arm, "seeds": list(SEEDS), "grid": [cell],
                   "settings": settings if arm == "PMPO AR" else [{}]}  # fmt: skip


def named(domain: str, **chunk: Any) -> pl.DataFrame:
    """Return the runs of a chunk with their domain and what they were set by: a name, or that of a filter."""
    runs = make(domain, **chunk)
    words = [json.loads(each).get("suggested", chunk["arm"]) for each in runs["setting"]]
    return runs.with_columns(domain=pl.lit(domain), set_by=pl.Series(words))


def table(raw: pl.DataFrame) -> list[str]:
    """Return the scores in every cell, and what the suggestions gain on the fixed setting there and in a domain."""
    lines = []
    for (domain,), part in raw.group_by("domain", maintain_order=True):
        for (share, coverage, flips), cell in part.group_by(*CELL, maintain_order=True):
            by = {str(name): runs for (name,), runs in cell.group_by("set_by", maintain_order=True)}
            filtered = max((by[name] for name in FILTERS if name in by), key=lambda runs: float(runs["score"].mean()))  # type: ignore[arg-type]
            labels = f"{100 * share:g} % accepted" if share else f"{100 * coverage:g} % of the labels"  # type: ignore[operator]
            scores = [shared.spread(t_interval(by[name]["score"]), 0) for name in (FIXED, BELOW, BOTH)]
            gains = [paired(by[name], by[FIXED]) for name in (BELOW, BOTH)]
            multiples = "{:.2f}".format((by[BELOW]["beta"] / by[FIXED]["beta"]).mean() * 1.05)
            lines.append([f"{domain}, {labels}, {100 * flips:g} % flipped", multiples, *scores,  # type: ignore[operator]
                          shared.spread(t_interval(filtered["score"]), 0), *gains])  # fmt: skip
        runs = {name: part.filter(pl.col("set_by") == name).fill_null(-1) for name in (FIXED, BELOW, BOTH)}
        every = [paired(runs[name], runs[FIXED], ("seed", *CELL)) for name in (BELOW, BOTH)]
        lines.append([f"{domain}, all cells", *[""] * 5, *every])
    head = ("cell", "suggested β / bound", FIXED, BELOW, BOTH, "better filter", "β alone gains", "α and β gain")
    return shared.table(head, lines, "lr")


def report(folder: Path) -> None:
    """Write control.md from control.parquet, below what control-findings.md says of it."""
    raw = pl.read_parquet(folder / "control.parquet")
    findings = (folder / "control-findings.md").read_text(encoding="utf-8")
    cost = f"{len(raw)} runs in {raw['cpu_seconds'].sum():.0f} CPU-seconds. {shared.hardware('torch', 'mujoco')}"
    text = "\n\n".join([findings.rstrip(), "\n".join(table(raw)), cost]) + "\n"
    (folder / "control.md").write_text(text, encoding="utf-8")


def main(
    out: Annotated[Path, typer.Option(help="Where to write.")] = OUT,
    parts: Annotated[Path, typer.Option(help="Folder of finished parts, to resume from.")] = Path("suggestion-parts"),
) -> None:
    """Run what is missing, and write the raw scores and the page."""
    shared.save(resumable(parts, chunks(), named), out / "control.parquet")
    report(out)


if __name__ == "__main__":
    shared.script(main)
