"""Ray Core tasks, on the cluster of $RAY_ADDRESS or on one that is started on this machine.

Ray starts a task again whose process or node dies; what it had finished is in the store and is not repeated.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pmpo_offline.benchmark.executors.executor import Outcome, bundles, run_on_node
from pmpo_offline.benchmark.plan import Plan, Unit
from pmpo_offline.runtime.errors import UserError, reason_of

RETRIES = 10
"""How often Ray itself starts a task again whose process or node died."""
STORE = 100 * 2**20
"""Bytes of the object store of a cluster that is started here: results are small."""


class RayTasks:
    """Runs bundles of units as Ray tasks of one core, and one GPU for a language model where the cluster has any."""

    def __init__(self, plan: Plan) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        try:
            import ray  # noqa: F401
        except ImportError:
            raise UserError("--executor ray needs Ray: pip install 'pmpo-offline[ray]'") from None
        self.workers = plan.workers

    def run(self, units: Sequence[Unit]) -> Iterator[Outcome]:
        """Run the units as tasks, as `Executor.run`."""
        import ray

        with _cluster(self.workers):
            resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            has_gpu = resources.get("GPU", 0) >= 1
            task = ray.remote(num_cpus=1, max_retries=RETRIES)(run_bundle)
            pending: dict[Any, list[Unit]] = {}
            for bundle in bundles(units, max(1, int(resources.get("CPU", 1)))):
                gpus = 1 if has_gpu and bundle[0].is_language else 0
                pending[task.options(num_gpus=gpus).remote(bundle, Path.cwd())] = bundle
            try:
                while pending:
                    (ready, *_), _ = ray.wait([*pending])
                    bundle = pending.pop(ready)
                    try:
                        yield ray.get(ready)
                    except ray.exceptions.RayError as error:
                        yield Outcome(bundle, lost=reason_of(error))
            finally:
                for reference in pending:
                    ray.cancel(reference, force=True)


def run_bundle(units: Sequence[Unit], cwd: Path) -> Outcome:
    """Run units in a process of Ray's, where paths of datasets mean what they mean in `cwd`."""
    if cwd.is_dir():
        os.chdir(cwd)
    return run_on_node(units)


@contextmanager
def _cluster(workers: int | None) -> Iterator[None]:
    """Connect to the cluster, and disconnect; the one that a caller is connected to is used and left."""
    import ray

    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    address = os.environ.get("RAY_ADDRESS")
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            ray.init("local", num_cpus=workers, object_store_memory=STORE, include_dashboard=False, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(
            f"no Ray cluster at {address or 'this machine'} ({reason_of(error)}): see RAY_ADDRESS"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()
