"""Where independent calls run: in processes of this machine, or as tasks of a Ray cluster.

Code that collects in shards calls `completed`; its caller chooses where that runs with `executor`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from pmpo_offline.runtime.errors import PmpoOfflineError, unknown
from pmpo_offline.runtime.processes import Ended, Task, in_processes
from pmpo_offline.runtime.ray_tasks import on_ray

ATTEMPTS = 3
"""How often a task is started whose process dies."""
EXECUTORS: Mapping[str, Callable[[Callable[..., Any], Sequence[Task], int, str], Iterator[Ended]]] = {
    "local": in_processes,
    "ray": on_ray,
}
_chosen: ContextVar[str] = ContextVar("executor", default="local")


@contextmanager
def executor(name: str) -> Iterator[None]:
    """Run the calls of `completed` inside the block by this executor; `UserError` for an unknown one."""
    if name not in EXECUTORS:
        raise unknown("executor", name, EXECUTORS)
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


def completed(
    function: Callable[..., Any], tasks: Sequence[Task], workers: int, work: str
) -> Iterator[tuple[Task, Any]]:
    """Yield each task with the result of its call as they end; here and now if one process of this machine is enough.

    Args:
        function: of a module, or a `partial` of one.
        tasks: the arguments of its calls.
        workers: processes at once.
        work: what they do, in the past tense: "collected episodes".

    Raises:
        PmpoOfflineError: the process of a task was killed `ATTEMPTS` times; all others were run.
    """
    if min(workers, len(tasks)) <= 1 and _chosen.get() == "local":
        yield from ((task, function(*task)) for task in tasks)
        return
    lost: list[Task] = list(tasks)
    for _ in range(ATTEMPTS):
        remaining, lost = lost, []
        for task, result, reason in EXECUTORS[_chosen.get()](function, remaining, workers, work):
            if reason is None:
                yield task, result
            else:
                lost.append(task)
                why = reason
        if not lost:
            return
    raise PmpoOfflineError(why)
