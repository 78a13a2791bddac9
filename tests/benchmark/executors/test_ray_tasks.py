"""A cluster of two nodes on this machine, of which workers and a node are killed while a benchmark runs."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    cluster.add_node(**NODE)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def workers(cluster: Cluster) -> list[int]:
    """Processes that run a task, all of them children of the cluster's raylets."""
    raylets = [info.process.pid for node in cluster.list_all_nodes() for info in node.all_processes["raylet"]]
    found = []
    for raylet in raylets:
        for path in Path(f"/proc/{raylet}/task").glob("*/children"):
            for pid in path.read_text().split():
                command = Path(f"/proc/{pid}/cmdline")
                if command.exists() and command.read_bytes().startswith(b"ray::run_bundle"):
                    found.append(int(pid))
    return found


def test_killed_workers_and_a_killed_node_lose_nothing(tmp_path: Path, small, cluster: Cluster) -> None:
    output, draw = tmp_path / "out", random.Random(0)
    killed: list[str] = []

    def kill() -> None:
        for scores in (1, 4):
            while len(list(output.glob("raw/*.parquet"))) < scores:
                time.sleep(0.05)
            if killed:
                cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)
                cluster.add_node(**NODE)
                killed.append("node")
            elif found := workers(cluster):
                os.kill(draw.choice(found), signal.SIGKILL)
                killed.append("worker")

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    done = small.bench(output, executor="ray")
    thread.join()
    assert killed == ["worker", "node"]
    assert not done.failures
    assert done.rows == small.whole.rows
