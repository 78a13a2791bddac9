"""Sweep β across the bound that `objectives.stability` predicts, and compare what was predicted with what happens.

python benchmarks/stability/sweep.py                 # everything: raw/*.parquet, report.md, pictures (10 CPU-minutes)
python benchmarks/stability/sweep.py --only gaussian # one domain; finished arms are kept unless --fresh
python benchmarks/stability/sweep.py --quick         # few values of β and short trainings, under results/
"""

from __future__ import annotations

import importlib
import platform
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import polars as pl
import torch
import typer
from experiment import COARSE, FEW, MULTIPLES

DOMAINS = ("bandit", "gaussian", "language")
COMMITTED = Path(__file__).parent.parent / "results" / "stability"
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
    torch.set_num_threads(1)
    output = output or (Path("results/stability-quick") if quick else COMMITTED)
    raw = output / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for domain in domains:
        module = importlib.import_module(domain)
        for arm in module.ARMS:
            path = raw / f"{arm.name}.parquet"
            if path.exists() and not fresh:
                continue
            if quick:
                frame = module.run(arm, FEW, QUICK[domain])
            else:
                frame = module.run(arm, COARSE if domain == "language" else MULTIPLES)
            frame.with_columns(machine=pl.lit(_machine())).write_parquet(path, compression="zstd")
            print(f"{arm.name}: {frame['cpu_seconds'][0]:.0f} CPU-seconds", flush=True)
    from report import write

    print(write(output))


def _machine() -> str:
    """Return the hardware, the versions and the day, which every raw file carries."""
    cpuinfo = Path("/proc/cpuinfo")
    models = [line.partition(": ")[2] for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
    processor = models[0] if models else platform.processor()
    return f"{processor}, one thread, torch {version('torch')}, Python {platform.python_version()}, {date.today()}"


if __name__ == "__main__":
    typer.run(main)
