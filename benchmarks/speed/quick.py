"""Where the time of a bare `pmpo-offline bench` goes, its datasets built in an empty home.

    python -m benchmarks.speed.quick                    # eight minutes on an idle machine

One process and one thread, in CPU-seconds by the stage of the progress that is reported, so that other work on the
machine moves them less than a clock would. Beside them: what the matrix products of the trainings would take by
themselves at the machine's peak, which is measured before and after, as in `mlp`.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # before torch reads them

import torch

from benchmarks.experiments import shared
from benchmarks.speed.contenders import square
from benchmarks.speed.timing import BATCH, flops
from pmpo_offline import bench, on_progress

IMPORTS = time.process_time()
"""CPU-seconds from the start of the process."""
PARTS = {
    "dataset: episodes of stacking": "collect episodes",
    "dataset: critic": "fit the critic",
    "dataset: clone that draws candidates": "clone the behaviour",
    "dataset: tiny language model and its responses": "train the tiny language model|sample completions|score resp.*",
    "training on stacking": "[^:]+, rgb-stacking.*: (train|clone) .*",
    "evaluation on stacking": ".*: play episodes",
    "language models: training and evaluation": ".*language/.*|tokenize|train .*|score texts|reference .*|read held.*",
    "imports, table and report": ".*",
}
"""Parts by the stages that are theirs; the first that matches."""
WIDTHS = [80, 256, 256, 256, 55]
"""Of the policies of stacking: observation, hidden layers, five components with their weights."""
UPDATES, DPO = 3000 * (5 * 5 + 1), 1500 * 5
"""Of runs: five rows of the table and the clone that draws candidates; of DPO, which reads the clone as well."""


class Meter:
    """CPU-seconds by part; a report counts what was done since the one before as its stage's."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._last = time.process_time()

    def __call__(self, stage: str, done: int = 0, total: int = 0) -> None:
        """Receive a report of progress."""
        now = time.process_time()
        part = next(name for name, pattern in PARTS.items() if re.fullmatch(pattern, stage))
        self.seconds[part] += now - self._last
        self._last = now


def peak(slots: int = 9) -> float:
    """Return the FLOP a second of the processor of a large product, the median of some slots."""
    product = square(512, torch.device("cpu"))
    return statistics.median(product.flops * 200 / product.update(200).cpu for _ in range(slots))


def products() -> float:
    """Return the FLOP of all matrix products of the trainings on stacking."""
    forward = sum(2.0 * BATCH * m * n for m, n in pairwise(WIDTHS))
    return UPDATES * flops(WIDTHS) + DPO * (flops(WIDTHS) + forward)


def main() -> None:
    """Measure, and write the page and its JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=shared.RESULTS / "speed")
    parser.add_argument("--results", type=Path, help="folder to keep the results in")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    before, beginning = peak(), shared.load()
    meter = Meter()
    meter.seconds["imports, table and report"] = IMPORTS
    with tempfile.TemporaryDirectory() as scratch, on_progress(meter):
        bench("quick", output=arguments.results or Path(scratch, "results"), home=Path(scratch, "home"), workers=1)
    meter("report")
    rate = statistics.mean([before, peak()])
    found = {
        "seconds": dict(meter.seconds),
        "total": sum(meter.seconds.values()),
        "peak_gflops": rate / 1e9,
        "products": products() / rate,
        "machine": shared.machine("torch", "mujoco", "transformers", load=[beginning, shared.load()]),
    }
    shared.publish(arguments.out / "quick", found, page(found))


def page(found: dict[str, Any]) -> str:
    """Return the page that is committed."""
    here, total = found["machine"], found["total"]
    rows = [(part, f"{found['seconds'][part]:.0f}", f"{found['seconds'][part] / total:.0%}") for part in PARTS]
    lines = [
        "# Where the time of a bare `bench` goes",
        "",
        f"{here['processor']}, one thread of {here['cores']} cores, load {' to '.join(map(str, here['load']))}; Python "
        f"{here['python']}, torch {here['torch']}, MuJoCo {here['mujoco']}, transformers {here['transformers']}. "
        "Written by `python -m benchmarks.speed.quick`.",
        "",
        *shared.table(("part", "CPU-seconds", "share"), [*rows, ("all", f"{total:.0f}", "100%")], "lr"),
        "",
        f"The matrix products of the trainings on stacking, the candidates' clone among them, would take "
        f"{found['products']:.0f} s by themselves at the machine's peak, {found['peak_gflops']:.0f} GFLOP/s.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
