"""Calls as Ray Core tasks, on the cluster of $RAY_ADDRESS or on one that is started on this machine.

Ray starts a task again whose process or node dies.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmpo_offline.runtime.errors import PmpoOfflineError, UserError, reason_of

if TYPE_CHECKING:
    from pmpo_offline.runtime.processes import Ended, Task

RETRIES = 10
"""How often Ray itself starts a task again whose process or node died."""
STORE = 100 * 2**20
"""Bytes of the object store of a cluster that is started here: results are small."""


def on_ray(function: Callable[..., Any], tasks: Sequence[Task], workers: int | None, work: str) -> Iterator[Ended]:
    """Call a function of a module with each of the tasks, one core each; yield them as they end, like `in_processes`.

    Raises `UserError` where Ray is not installed, and where there is no cluster at $RAY_ADDRESS.
    """
    with cluster(workers):
        yield from call(function, tasks)


def call(
    function: Callable[..., Any], tasks: Sequence[Task], gpus: Callable[[Task], float] = lambda task: 0
) -> Iterator[Ended]:
    """Call a function on the open cluster, as `on_ray` does, with so many GPUs for each task."""
    import ray

    remote = ray.remote(num_cpus=1, max_retries=RETRIES)(run_task)
    pending = {remote.options(num_gpus=gpus(task)).remote(function, task, Path.cwd()): task for task in tasks}
    try:
        while pending:
            (ready, *_), _ = ray.wait([*pending])
            task = pending.pop(ready)
            try:
                result = ray.get(ready)
            except ray.exceptions.RayError as error:
                if isinstance(cause := getattr(error, "cause", None), PmpoOfflineError):
                    raise cause from None
                yield task, None, reason_of(error)
            else:
                yield task, result, None
    finally:
        for reference in pending:
            ray.cancel(reference, force=True)


def run_task(function: Callable[..., Any], task: Task, cwd: Path) -> Any:
    """Call a function in a process of Ray's, where paths mean what they mean in `cwd`."""
    if cwd.is_dir():
        os.chdir(cwd)
    return function(*task)


def require_ray() -> None:
    """Raise `UserError` unless Ray is installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    os.environ.setdefault("RAY_worker_niceness", "0")  # as the processes of `local`: on a busy machine 15 is never
    try:
        import ray  # noqa: F401
    except ImportError:
        raise UserError("--executor ray needs Ray: pip install 'pmpo-offline[ray]'") from None


@contextmanager
def cluster(workers: int | None) -> Iterator[Mapping[str, float]]:
    """Connect to the cluster, and disconnect; yield its resources. The one that a caller is connected to is left."""
    require_ray()
    import ray

    if ray.is_initialized():
        yield ray.cluster_resources()  # type: ignore[no-untyped-call]
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
        yield ray.cluster_resources()  # type: ignore[no-untyped-call]
    finally:
        ray.shutdown()
