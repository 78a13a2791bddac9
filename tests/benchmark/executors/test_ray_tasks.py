"""A cluster of two nodes on this machine, of which a process and a node are killed while a benchmark runs."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from benchmarks.speed.killed_cluster import HEAD, NODE, task_processes

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="the processes of a cluster are found in /proc"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args=HEAD)
    cluster.add_node(**NODE)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_a_killed_process_and_a_killed_node_lose_nothing(tmp_path: Path, small, cluster: Cluster) -> None:
    output, draw = tmp_path / "out", random.Random(0)
    killed: list[str] = []

    def await_scores(count: int) -> None:
        while len(list(output.glob("raw/*.parquet"))) < count:
            time.sleep(0.02)

    def kill() -> None:
        await_scores(1)
        while not (running := task_processes(cluster)):
            time.sleep(0.02)
        os.kill(draw.choice(running), signal.SIGKILL)
        killed.append("process")
        await_scores(2)
        cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)
        killed.append("node")

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    done = small.bench(output, executor="ray")
    thread.join()
    assert killed == ["process", "node"]
    assert not done.failures
    assert done.rows == small.whole.rows
