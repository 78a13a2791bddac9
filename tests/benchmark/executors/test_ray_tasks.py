"""A cluster of two nodes on this machine, of which a process and a node are killed while a benchmark runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import pytest
from helpers.dying import lost_with_its_node

from benchmarks.speed.killed_cluster import HEAD, NODE
from pmpo_offline.benchmark.executors import ray_tasks

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="the processes of a cluster are found in /proc"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    import ray  # here, because no other test of this process may need it
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))  # where `helpers` is
        cluster = Cluster(initialize_head=True, head_node_args=HEAD)
        cluster.add_node(**NODE)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        yield cluster
        ray.shutdown()
        cluster.shutdown()


def test_a_killed_process_and_a_killed_node_lose_nothing(
    tmp_path: Path, small, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    (node,) = cluster.worker_nodes
    dying = partial(lost_with_its_node, tmp_path, node.node_id, ray_tasks.run_on_node)
    monkeypatch.setattr(ray_tasks, "run_on_node", dying)
    ended = Event()

    def kill() -> None:
        while not (tmp_path / "gate").exists():
            if ended.wait(0.02):
                return
        cluster.remove_node(node, allow_graceful=False)

    with ThreadPoolExecutor(1) as pool:
        removed = pool.submit(kill)
        try:
            done = small.bench(tmp_path / "out", executor="ray")
        finally:
            ended.set()
        removed.result()
    assert not cluster.worker_nodes
    assert len(list((tmp_path / "calls").iterdir())) > len(done.rows), "one call was killed"
    assert not done.failures
    assert done.rows == small.whole.rows
