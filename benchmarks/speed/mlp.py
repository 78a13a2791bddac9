"""How fast our trainer updates small networks, beside a plain loop, d3rlpy and the machine's own matrix products.

    python -m benchmarks.speed.mlp                      # about three minutes; `make peers` first
    python -m benchmarks.speed.mlp --device cuda

All contenders clone the same 100,000 rows (17 observations, 6 actions) with a network 17-256-256-12 and minibatches of
256. They take turns, one slot each, round after round, so that whatever else the machine does hits all alike; the
figures are medians of the slots. Everything runs on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # before torch reads them

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.experiments import shared
from benchmarks.speed import rows
from benchmarks.speed.contenders import D3rlpy, ours, plain, products, square
from benchmarks.speed.timing import Contender, Timing

SQUARES = (512, 1024, 2048)
"""Sizes of the large products; the fastest is the machine's peak."""
STACKED = 5
"""Runs of the stack whose share of the peak is a goal."""
COLUMNS = ("trainer", "run-updates/s", "min to max", "on the clock", "GFLOP/s", "of peak", "× plain", "× d3rlpy")


def main() -> None:
    """Measure, print the table, and write JSON and Markdown."""
    arguments = parse()
    device = torch.device(arguments.device)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        d3rlpy = D3rlpy(arguments.peers, folder, device) if arguments.peers.exists() else None
        dataset = rows.dataset(folder)
        peaks, shapes = [square(n, device) for n in SQUARES], products(STACKED, device)
        loops = [plain(device), *([d3rlpy.contender] if d3rlpy else [])]
        loops += [ours(dataset, runs, device) for runs in (1, STACKED, 20)]
        lengths = {each.name: arguments.seconds / (1 if each in loops else 10) for each in [*peaks, *shapes, *loops]}
        timings = take_turns([*peaks, *shapes, *loops], arguments.rounds, lengths)
        if d3rlpy:
            d3rlpy.close()
    clock = "wall" if device.type == "cuda" else "cpu"
    found = summary(peaks, shapes, loops, timings, clock) | {"stacked": STACKED, "machine": machine(device, d3rlpy)}
    show(found)
    arguments.out.mkdir(parents=True, exist_ok=True)
    stem = arguments.out / f"mlp-{device.type}"
    stem.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    stem.with_suffix(".md").write_text(markdown(found))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=7, help="slots of each contender")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a trainer's slot; products get a tenth")
    parser.add_argument("--peers", type=Path, default=shared.ROOT / ".venv-peers/bin/python", help="d3rlpy's Python")
    parser.add_argument("--out", type=Path, default=shared.RESULTS / "speed")
    return parser.parse_args()


def take_turns(
    contenders: list[Contender], rounds: int, seconds: Mapping[str, float]
) -> dict[str, list[tuple[int, Timing]]]:
    """Return (updates, timing) of each contender's slots; a warm-up finds how many updates fill a slot."""
    counts: dict[str, int] = {}
    for each in contenders:
        each.update(3)
        trial = max(3, int(seconds[each.name] / 4 / (each.update(10).wall / 10)))
        counts[each.name] = max(10, int(seconds[each.name] / (each.update(trial).wall / trial)))
    timings: dict[str, list[tuple[int, Timing]]] = {each.name: [] for each in contenders}
    for turn in range(rounds):
        for each in contenders:
            timings[each.name].append((counts[each.name], each.update(counts[each.name])))
        print(f"round {turn + 1} of {rounds}", file=sys.stderr)
    return timings


def summary(
    peaks: list[Contender],
    shapes: list[Contender],
    loops: list[Contender],
    timings: dict[str, list[tuple[int, Timing]]],
    clock: str,
) -> dict[str, Any]:
    """Return the figures: rates a second of `clock` ("cpu" or "wall"), GFLOP/s and their share of the peak."""

    def rates(each: Contender, which: str) -> list[float]:
        return [n * each.runs / getattr(timing, which) for n, timing in timings[each.name]]

    def described(each: Contender) -> dict[str, Any]:
        rate = rates(each, clock)
        return {
            "name": each.name,
            "rate": statistics.median(rate),
            "min": min(rate),
            "max": max(rate),
            "wall_rate": statistics.median(rates(each, "wall")),
            "gflops": statistics.median(rate) * each.flops / 1e9,
            "flops_per_update": each.flops,
        }

    # Medians, as for everyone else: a peak that the machine holds, not one that it touched.
    large, batched, table = ([described(each) for each in group] for group in (peaks, shapes, loops))
    peak = max(row["gflops"] for row in large)
    by_name = {row["name"]: row["rate"] for row in table}
    for row in table:
        row["of_peak"] = row["gflops"] / peak
        row["times_plain"] = row["rate"] / by_name["plain loop, 1 run"]
        row["times_d3rlpy"] = row["rate"] / by_name["d3rlpy BC, 1 run"] if "d3rlpy BC, 1 run" in by_name else None
    alone = 1 / sum(1 / row["rate"] for row in batched)
    return {
        "clock": clock,
        "peak_gflops": peak,
        "products_alone": {"rate": alone, "of_peak": alone * loops[-1].flops / 1e9 / peak},
        "products": large + batched,
        "trainers": table,
    }


def machine(device: torch.device, d3rlpy: D3rlpy | None) -> dict[str, Any]:
    """Return what the figures hold for."""
    more = {
        "load": shared.load(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
    }
    return {**shared.machine("torch", "numpy", **more), "d3rlpy": d3rlpy.version if d3rlpy else None}


def cells(row: dict[str, Any]) -> list[str]:
    """Return a trainer's row of the table."""
    beside = "—" if row["times_d3rlpy"] is None else f"{row['times_d3rlpy']:.2f}"
    return [
        row["name"],
        f"{row['rate']:.0f}",
        f"{row['min']:.0f} to {row['max']:.0f}",
        f"{row['wall_rate']:.0f}",
        f"{row['gflops']:.1f}",
        f"{row['of_peak']:.1%}",
        f"{row['times_plain']:.2f}",
        beside,
    ]


def show(found: dict[str, Any]) -> None:
    """Print the table."""
    table = Table(title=f"Updates of a run, a second of {found['clock']} time; peak {found['peak_gflops']:.1f} GFLOP/s")
    for i, name in enumerate(COLUMNS):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
    for row in found["trainers"]:
        table.add_row(*cells(row))
    Console(width=120).print(table)


def goals(found: dict[str, Any]) -> list[str]:
    """Return what was aimed at beside what was found, and how much the matrix products alone would allow."""
    trainers = {row["name"]: row for row in found["trainers"]}
    if found["machine"]["gpu"]:
        return [f"Goal: 20 times the plain loop with 20 runs; found {trainers['ours, 20 runs']['times_plain']:.1f}."]
    stack, loop = trainers[f"ours, {found['stacked']} runs"], trainers["plain loop, 1 run"]
    peer, limit = trainers.get("d3rlpy BC, 1 run"), found["products_alone"]["rate"]
    aims = [
        ("of the peak", 0.6, stack["of_peak"], found["products_alone"]["of_peak"]),
        ("times the plain loop", 2, stack["times_plain"], limit / loop["rate"]),
    ]
    if peer:
        aims.append(("times d3rlpy", 5, stack["times_d3rlpy"], limit / peer["rate"]))
    rows = [(what, f"{aim:g}", f"{got:#.3g}", f"{most:#.3g}") for what, aim, got, most in aims]
    header = (f"with {found['stacked']} stacked runs", "goal", "found", "with the products alone")
    return shared.table(header, rows, "lr")


def markdown(found: dict[str, Any]) -> str:
    """Return the page that is committed."""
    here, alone = found["machine"], found["products_alone"]
    where = here["gpu"] or f"{here['processor']}, {here['vectors']}, one thread of {here['cores']} cores"
    products = [
        (row["name"], f"{row['gflops']:.1f}", f"{row['gflops'] / found['peak_gflops']:.0%}")
        for row in found["products"]
    ]
    lines = [
        "# Speed of small networks",
        "",
        f"{where}; load {here['load']} at the end; Python {here['python']}, torch {here['torch']}, NumPy "
        f"{here['numpy']}, d3rlpy {here['d3rlpy']}. Written by `python -m benchmarks.speed.mlp`.",
        "",
        f"Rates are medians a second of {found['clock']} time, of slots in turns. One update of one run of our network "
        f"takes {found['trainers'][-1]['flops_per_update'] / 1e6:.1f} MFLOP (`timing.flops`). The peak is the "
        f"fastest large product, {found['peak_gflops']:.1f} GFLOP/s. The matrix products of {found['stacked']} runs "
        f"alone, with nothing between them, would make {alone['rate']:.0f} run-updates a second.",
        "",
        *shared.table(COLUMNS, map(cells, found["trainers"]), "lr"),
        "",
        *goals(found),
        "",
        *shared.table(("matrix product", "GFLOP/s", "of peak"), products, "lr"),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
