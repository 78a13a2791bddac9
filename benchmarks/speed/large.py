"""Memory and time of a large dataset: collected, labelled, written, verified, sampled and trained on.

    python -m benchmarks.speed.large                    # 50M transitions: 12 GB of disk, about four minutes
    python -m benchmarks.speed.large --rows 3000000

What a build does, with random episodes of 1,000 steps (17 observations, 6 actions) in place of a simulator: they come
in parts of 100 episodes. Memory is the peak of the process during each step, pages of mapped files included.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # before torch reads them

import numpy as np

from benchmarks.experiments import shared
from benchmarks.speed import rows
from benchmarks.speed.storage import resident
from pmpo_offline import data
from pmpo_offline.data import Experience
from pmpo_offline.data.mapping import spilled

LENGTH, EPISODES = 1000, 100
GOAL = 1536
"""MiB."""
COLUMNS = ("step", "s", "peak, MiB")


def parts(count: int) -> Iterator[Experience]:
    """Yield the episodes in parts, as collecting processes leave them."""
    rng = np.random.default_rng(0)
    for start in range(0, count // LENGTH, EPISODES):
        yield rows.drawn(EPISODES * LENGTH, LENGTH, rng, start)


class Steps:
    """The steps that were measured."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._start = time.process_time()
        self._reset = Path("/proc/self/clear_refs")

    def done(self, name: str) -> None:
        """Record the seconds of the processor and the peak memory since the last step."""
        self.rows.append({"step": name, "seconds": time.process_time() - self._start, "peak": resident("VmHWM")})
        print(", ".join(cells(self.rows[-1])), file=sys.stderr)
        self._reset.write_text("5", encoding="ascii")  # the peak begins again
        self._start = time.process_time()


def measure(count: int, folder: Path, updates: int) -> list[dict[str, Any]]:
    """Return the steps of a dataset's life with what each takes."""
    import torch

    from pmpo_offline.training import train

    torch.set_num_threads(1)
    steps = Steps()
    steps.done("imports")
    with spilled(folder):
        experience = Experience.concatenate(parts(count))
        steps.done("collect")
        stored = rows.labelled(experience, "return", imbalance=0.3, noise=0.1)
    steps.done("tables and labels")
    data.write(folder / "set", *stored)
    steps.done("write")
    del experience, stored
    dataset = data.load_dataset(folder / "set")
    steps.done("open")
    if wrong := data.verify(folder / "set"):
        raise SystemExit(wrong[0])
    steps.done("verify")
    for _ in range(2000):
        dataset.sample(256)
    steps.done("2,000 × sample(256)")
    for _ in range(2):
        dataset.sample(1 << 19)
    steps.done("2 × sample(524,288)")
    train(dataset, "pmpo", overrides={"updates": updates}, device="cpu")
    steps.done(f"train pmpo, {updates:,} updates")
    return steps.rows


def cells(row: dict[str, Any]) -> list[str]:
    """Return a step's row of the table."""
    return [row["step"], f"{row['seconds']:.1f}", f"{row['peak']:,.0f}"]


def markdown(found: dict[str, Any]) -> str:
    """Return the page that is committed."""
    here, peak = found["machine"], max(row["peak"] for row in found["steps"])
    lines = [
        "# A large dataset",
        "",
        f"{here['processor']}, one thread of {here['cores']} cores; load {here['load']} at the end; Python "
        f"{here['python']}, NumPy {here['numpy']}, pyarrow {here['pyarrow']}, torch {here['torch']}. Written by "
        "`python -m benchmarks.speed.large`.",
        "",
        f"{found['rows']:,} transitions (17 observations, 6 actions), {found['bytes'] / 1e9:.1f} GB on disk; seconds "
        "of the processor, and the peak of resident memory during each step, mapped files included.",
        "",
        *shared.table(COLUMNS, map(cells, found["steps"]), "lrr"),
        "",
        f"Goal: at most {GOAL:,} MiB; the highest peak is {peak:,.0f}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print the page, and write it and its JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000_000)
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--scratch", type=Path, help="folder for the dataset, a temporary one by default")
    parser.add_argument("--out", type=Path, default=shared.RESULTS / "speed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        steps = measure(arguments.rows, Path(folder), arguments.updates)
        size = sum(path.stat().st_size for path in Path(folder, "set").iterdir())
    machine = shared.machine("numpy", "pyarrow", "torch", load=shared.load())
    found = {"rows": arguments.rows, "bytes": size, "steps": steps, "machine": machine}
    shared.publish(arguments.out / "large", found, markdown(found))


if __name__ == "__main__":
    main()
