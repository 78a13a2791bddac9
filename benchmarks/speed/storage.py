"""Writing, opening, reading and sampling a dataset of transitions, beside the other formats of offline data.

    python -m benchmarks.speed.storage                         # 1M transitions in 1,000 episodes, about three minutes
    python -m benchmarks.speed.storage --rows 1000000 1000000 20000000 --length 1000 10 1000

Contenders (`formats.py`) whose environment is not there are left out and named on the page: `make peers` makes it.
Each writes the same steps (17 observations, 6 actions, a reward, ends) in one process, and opens, reads and samples
them in another, so that memory is its own. A minibatch is the observation, action and reward of 256 random
transitions, with indices drawn beforehand, one after another or those of 1,024 minibatches in one call. Times are of
the processor, one thread, files in the system's cache; memory is the peak beyond that after the imports, pages of
mapped files included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "ARROW_IO_THREADS": "1"}

import numpy as np

from benchmarks.experiments import shared
from benchmarks.speed import rows
from benchmarks.speed.formats import BATCH, CONTENDERS
from benchmarks.speed.rows import ACTION, OBSERVATION

TOGETHER = 1024
"""Minibatches that are drawn in one call."""
GOALS = "Goals: 1M transitions written in at most 1 s, opened in at most 5 ms."
COLUMNS = (
    *("format", "write, s", "disk, MB", "open, ms", "read all, s"),
    *("transitions/s of minibatches", f"of {TOGETHER:,} in one call", "memory, MiB"),
)


def resident(field: str) -> float:
    """Return MiB of this process: VmRSS now, or VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def write(name: str, folder: Path, count: int, length: int) -> dict[str, float]:
    """Write in this process; the seconds include what the library checks and hashes."""
    rng, contender = np.random.default_rng(0), CONTENDERS[name]
    with tempfile.TemporaryDirectory(dir=folder) as first:  # imports
        contender.write(Path(first), rows.drawn(10, 5, rng))
    experience = rows.drawn(count, length, rng)
    start = time.process_time()
    contender.write(folder, experience)
    return {"write": time.process_time() - start}


def read(name: str, folder: Path, count: int) -> dict[str, float]:
    """Open, read and sample in this process; imports are made by a small set before."""
    import pandas  # noqa: F401 - pyarrow imports it at the first conversion to an array

    rng, contender = np.random.default_rng(1), CONTENDERS[name]
    with tempfile.TemporaryDirectory(dir=folder) as first:  # imports
        contender.write(Path(first), rows.drawn(10, 5, rng))
        contender.open(Path(first))
    before, start = resident("VmRSS"), time.process_time()
    opened = contender.open(folder)
    found = {"open": time.process_time() - start}
    start = time.process_time()
    opened.read()
    found["read"] = time.process_time() - start
    indices = rng.integers(0, count, (opened.batches, BATCH))
    opened.draw(indices[0])
    start = time.process_time()
    for each in indices:
        opened.draw(each)
    found |= {"rate": indices.size / (time.process_time() - start), "memory": resident("VmHWM") - before}
    if opened.batches >= TOGETHER:
        together = rng.integers(0, count, (TOGETHER, BATCH))
        start = time.process_time()
        opened.draw(together)
        found["together"] = together.size / (time.process_time() - start)
    return found


def interpreter(name: str) -> Path:
    """Return the Python of a contender's environment, which may be missing."""
    environment = CONTENDERS[name].environment
    return Path(sys.executable) if environment == ".venv" else shared.ROOT / environment / "bin/python"


def measure(name: str, count: int, length: int, scratch: Path) -> dict[str, Any]:
    """Return a contender's figures, of two processes."""
    found: dict[str, Any] = {"name": name, "title": CONTENDERS[name].title}
    python = interpreter(name)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        for phase in ("write", "read"):
            asked = f"--phase {phase} --only {name} --rows {count} --length {length} --scratch".split()
            done = subprocess.run(
                [python, "-W", "ignore", "-m", "benchmarks.speed.storage", *asked, folder],
                check=True,
                stdout=subprocess.PIPE,
            )
            found |= json.loads(done.stdout.splitlines()[-1])
        found["disk"] = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return found


def cells(row: dict[str, Any]) -> list[str]:
    """Return a contender's row of the table."""
    return [
        row["title"],
        f"{row['write']:.2f}",
        f"{row['disk'] / 1e6:,.0f}",
        f"{row['open'] * 1e3:,.1f}",
        f"{row['read']:.2f}",
        f"{row['rate']:,.0f}",
        f"{row['together']:,.0f}" if "together" in row else "–",
        f"{row['memory']:,.0f}",
    ]


def markdown(found: dict[str, Any]) -> str:
    """Return the page that is committed."""
    packages = "numpy", "pyarrow", "h5py", "minari", "datasets", "torch"
    here = found["machine"]
    lines = [
        "# Speed of storage",
        "",
        f"{here['processor']}, one thread of {here['cores']} cores; load {here['load']} at the end; Python "
        f"{here['python']}, {', '.join(f'{name} {here[name]}' for name in packages)}. "
        "Written by `python -m benchmarks.speed.storage`.",
        "",
        f"{OBSERVATION} observations, {ACTION} actions; seconds of the processor, files in the system's cache. Ours "
        "checks the tables and hashes the files as it writes. A minibatch is 256 random transitions, drawn one after "
        f"another or {TOGETHER:,} in one call; Minari gives whole episodes, one for each of them, and d3rlpy draws its "
        "own. Memory is the peak of opening, reading and sampling, beyond the "
        "imports, mapped files included.",
    ]
    for size in found["sizes"]:
        lines += ["", f"## {size['rows']:,} transitions, {size['rows'] // size['length']:,} episodes", ""]
        lines += shared.table(COLUMNS, map(cells, size["contenders"]), "lrrrrrrr")
        if size["left_out"]:
            lines += ["", f"Not measured at this size: {', '.join(size['left_out'])}."]
    return "\n".join([*lines, "", GOALS]) + "\n"


def main() -> None:
    """Measure, print the page, and write it and its JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--length", type=int, nargs="+", default=[1000], help="of an episode, one for each of --rows")
    parser.add_argument("--only", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--out", type=Path, default=shared.RESULTS / "speed")
    parser.add_argument("--scratch", type=Path, help="folder for the datasets, a temporary one by default")
    parser.add_argument("--phase", choices=["write", "read"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    count, length = arguments.rows[0], arguments.length[0]
    if arguments.phase == "write":
        print(json.dumps(write(arguments.only[0], arguments.scratch, count, length)))
        return
    if arguments.phase == "read":
        print(json.dumps(read(arguments.only[0], arguments.scratch, count)))
        return
    sizes = []
    for count, length in zip(arguments.rows, arguments.length, strict=True):
        contenders, left_out = [], []
        for name in arguments.only:
            rows_most, episodes_most = CONTENDERS[name].most
            if count > rows_most or count // length > episodes_most or not interpreter(name).exists():
                left_out.append(CONTENDERS[name].title)
                continue
            contenders.append(measure(name, count, length, arguments.scratch))
            print(", ".join(cells(contenders[-1])), file=sys.stderr)
        sizes.append({"rows": count, "length": length, "contenders": contenders, "left_out": left_out})
    packages = ("numpy", "pyarrow", "h5py", "minari", "datasets", "torch")
    found = {"sizes": sizes, "machine": shared.machine(*packages, load=shared.load())}
    shared.publish(arguments.out / "storage", found, markdown(found))


if __name__ == "__main__":
    main()
