"""Sweep β across the bound that `objectives.stability` predicts, and compare the prediction with what happens.

python -m benchmarks.experiments.stability.run                   # raw/*.parquet, report.md, pictures (10 CPU-minutes)
python -m benchmarks.experiments.stability.run --only gaussian   # one domain; finished arms are kept unless --fresh
python -m benchmarks.experiments.stability.run --quick           # few values of β, short trainings, under results/
"""

from __future__ import annotations

import platform
from datetime import date
from pathlib import Path
from typing import Annotated

import polars as pl
import typer

from benchmarks.experiments import shared
from benchmarks.experiments.stability import bandit, gaussian, language, report
from benchmarks.experiments.stability.experiment import COARSE, FEW, MULTIPLES

DOMAINS = {"bandit": bandit, "gaussian": gaussian, "language": language}
COMMITTED = shared.RESULTS / "stability"
QUICK = {"bandit": 800, "gaussian": 600, "language": 40}
"""Updates of a quick trial."""


def main(
    only: Annotated[str, typer.Option(help="Domains, as in bandit,gaussian.")] = ",".join(DOMAINS),
    quick: Annotated[bool, typer.Option("--quick", help="A trial of two CPU-minutes.")] = False,
    output: Annotated[Path | None, typer.Option(help="Directory of results.", show_default="see above")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run again what is there.")] = False,
) -> None:
    """Run what is missing, then write the report and the pictures from all raw results."""
    domains = only.split(",")
    if odd := set(domains) - set(DOMAINS):
        raise typer.BadParameter(f"{min(odd)} is none of {', '.join(DOMAINS)}", param_hint="--only")
    output = output or (Path("results/stability-quick") if quick else COMMITTED)
    for domain in domains:
        for arm in DOMAINS[domain].ARMS:
            path = output / "raw" / f"{arm.name}.parquet"
            if path.exists() and not fresh:
                continue
            if quick:
                frame = DOMAINS[domain].run(arm, FEW, QUICK[domain])
            else:
                frame = DOMAINS[domain].run(arm, COARSE if domain == "language" else MULTIPLES)
            shared.save(frame.with_columns(machine=pl.lit(_machine())), path)
            print(f"{arm.name}: {frame['cpu_seconds'][0]:.0f} CPU-seconds", flush=True)
    print(report.write(output))


def _machine() -> str:
    """Return the hardware, the versions and the date, which every raw file carries."""
    python = platform.python_version()
    return f"{shared.processor()}, one thread, {shared.versions('torch')}, Python {python}, {date.today()}"


if __name__ == "__main__":
    shared.script(main)
