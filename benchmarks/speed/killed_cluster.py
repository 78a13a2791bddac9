"""A bandit suite on a two-node Ray cluster of this machine, whose workers and nodes are killed at random.

    python -m benchmarks.speed.killed_cluster --cells 1000 --kills 50

It runs the suite in one process first, then on the cluster, and compares the two tables: nothing may be lost, and every
number must be the same. Writes benchmarks/results/speed/killed-cluster.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.experiments.shared import RESULTS, load, machine, table

ALGORITHMS = ("bc", "bc-accepted", "accept", "pmpo", "kto")
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
SYSTEM = {
    "health_check_initial_delay_ms": 1000,  # a dead node is noticed after two seconds, not fifteen
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 3,
    "worker_niceness": 0,  # not 15, with which tasks starve on a machine that others use
}
HEAD = {**NODE, "_system_config": SYSTEM}
NODE_SHARE = 0.3
"""Share of the kills that take a whole node, which is replaced; the others take one process that runs a task."""


def suite(dataset: str, cells: int) -> str:
    """Return a suite of about so many cells: every algorithm on as many shares of accepts, by labels, as it takes."""
    conditions = max(1, round(cells / len(ALGORITHMS)))
    shares = [round(0.1 + 0.8 * number / conditions, 6) for number in range(conditions)]
    return f"""
title = "{conditions * len(ALGORITHMS)} cells"
datasets = ["{dataset}"]
imbalance = {shares}
algorithms = {json.dumps(ALGORITHMS)}
reference = "bc"
seeds = 2
episodes = 10
updates = 30
"""


def task_processes(cluster: Any) -> list[int]:
    """Return the processes that run a part of a benchmark, all of them children of the cluster's own raylets."""
    found = []
    for node in cluster.list_all_nodes():
        for info in node.all_processes["raylet"]:
            for path in Path(f"/proc/{info.process.pid}/task").glob("*/children"):
                for pid in path.read_text().split():
                    command = Path(f"/proc/{pid}/cmdline")
                    if command.exists() and command.read_bytes().startswith(b"ray::run_task"):
                        found.append(int(pid))
    return found


@dataclass
class Killer:
    """Kills processes and nodes of a cluster as scores appear, at random places of the whole run."""

    cluster: Any
    output: Path
    kills: int
    cells: int
    draw: random.Random = field(default_factory=lambda: random.Random(0))
    done: list[str] = field(default_factory=list)

    def run(self, benchmark: subprocess.Popen[bytes]) -> None:
        """Kill until the benchmark ends."""
        moments = sorted(self.draw.sample(range(1, self.cells), self.kills))
        for moment in moments:
            while len(list(self.output.glob("raw/*.parquet"))) < moment:
                if benchmark.poll() is not None:
                    return
                time.sleep(0.02)
            self._kill(benchmark)

    def _kill(self, benchmark: subprocess.Popen[bytes]) -> None:
        if self.draw.random() < NODE_SHARE and self.cluster.worker_nodes:
            self.cluster.remove_node(self.draw.choice([*self.cluster.worker_nodes]), allow_graceful=False)
            self.cluster.add_node(**NODE)
            self.done.append("node")
            return
        while not (found := task_processes(self.cluster)):
            if benchmark.poll() is not None:
                return
            time.sleep(0.05)
        os.kill(self.draw.choice(found), signal.SIGKILL)
        self.done.append("process")


def measure(cells: int, kills: int, folder: Path) -> dict[str, Any]:
    """Run the suite in one process and on the cluster; return what was found."""
    import torch
    from ray.cluster_utils import Cluster

    from pmpo_offline.benchmark import bench, report_on
    from pmpo_offline.build import build_dataset

    torch.set_num_threads(1)
    home, output, path = folder / "home", folder / "ray", folder / "cells.toml"
    built = build_dataset("bandit/sphere-v0", episodes=400, home=home, workers=1)
    path.write_text(suite(built.metadata.id, cells), encoding="utf-8")
    begun = time.monotonic()
    whole = bench(str(path), output=folder / "local", home=home, workers=1)
    alone, begun = time.monotonic() - begun, time.monotonic()
    cluster = Cluster(initialize_head=True, head_node_args=HEAD)
    try:
        cluster.add_node(**NODE)
        command = [sys.executable, "-m", "pmpo_offline", "bench", str(path), "--executor", "ray"]
        command += ["--output", str(output), "--home", str(home)]
        environment = {**os.environ, "RAY_ADDRESS": cluster.address}
        benchmark = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        killer = Killer(cluster, output, kills, len(whole.rows))
        killer.run(benchmark)
        code = benchmark.wait()
    finally:
        cluster.shutdown()
    done = report_on(output)
    missing = {row["key"] for row in whole.rows} - {row["key"] for row in done.rows}
    return {
        "machine": machine("ray", "torch", load=load()),
        "cells": len(whole.rows),
        "processes killed": killer.done.count("process"),
        "nodes killed": killer.done.count("node"),
        "exit code": code,
        "cells lost": len(missing),
        "tables identical": done.rows == whole.rows,
        "seconds in one process": round(alone, 1),
        "seconds on the cluster": round(time.monotonic() - begun, 1),
    }


def page(found: dict[str, Any]) -> str:
    """Return the Markdown page."""
    about = ", ".join(f"{name} {value}" for name, value in found["machine"].items())
    names = [name for name in found if name != "machine"]
    lines = table(["", ""], [[name, str(found[name])] for name in names], "lr")
    text = "Written by `python -m benchmarks.speed.killed_cluster`. Two nodes of one core each, on one machine."
    return "\n".join(["# A cluster whose processes and nodes are killed", "", f"{about}. {text}", "", *lines]) + "\n"


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=50)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(arguments.cells, arguments.kills, Path(folder))
    target = RESULTS / "speed" / "killed-cluster.json"
    target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    target.with_suffix(".md").write_text(page(found), encoding="utf-8")
    print(page(found))


if __name__ == "__main__":
    main()
