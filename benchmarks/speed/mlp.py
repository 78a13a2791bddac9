"""How fast our trainer updates small networks, beside a plain loop, d3rlpy and the machine's own matrix products.

    python benchmarks/speed/mlp.py                      # about three minutes; `make peers` first
    python benchmarks/speed/mlp.py --device cuda

All contenders clone the same 100,000 rows (17 observations, 6 actions) with a network 17-256-256-12 and minibatches of
256. They take turns, one slot each, round after round, so that whatever else the machine does hits all alike; the
figures are medians of the slots. Everything runs on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # before torch reads them

import rows
import torch
from contenders import D3rlpy, ours, plain
from page import markdown, show
from products import products, square
from timing import Contender, Timing

REPOSITORY = Path(__file__).parents[2]
SQUARES = (512, 1024, 2048)
"""Sizes of the large products; the fastest is the machine's peak."""
STACKED = 5
"""Runs of the stack whose share of the peak is a goal."""


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
    parser.add_argument("--peers", type=Path, default=REPOSITORY / ".venv-peers/bin/python", help="d3rlpy's Python")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks/results/speed")
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
    listed = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in listed if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "numpy": version("numpy"),
        "d3rlpy": d3rlpy.version if d3rlpy else None,
    }


if __name__ == "__main__":
    main()
