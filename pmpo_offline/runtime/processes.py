"""Calls in other processes: of this machine, which die with the process that started them, or as tasks of Ray.

Code that works in parts calls `completed`; its caller chooses where they run, with `executor`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from multiprocessing.connection import Connection
from typing import Any

from pmpo_offline.runtime.errors import PmpoOfflineError, unknown
from pmpo_offline.runtime.files import interruptible
from pmpo_offline.runtime.machine import SLEEPING
from pmpo_offline.runtime.ray_tasks import on_ray

Submit = Callable[..., "Future[Any]"]
"""submit(function, *arguments): call a function of a module in another process; returns the `Future` of its result."""


Task = tuple[Any, ...]
"""The arguments of one call."""
Ended = tuple[Task, Any, str | None]
"""A task, the result of its call, and None; or why its process died, if it did."""

ATTEMPTS = 3
"""How often a task is started whose process dies."""


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


def in_processes(function: Callable[..., Any], tasks: Sequence[Task], workers: int, work: str) -> Iterator[Ended]:
    """Call a function of a module with each of the tasks in up to `workers` processes; yield them as they end.

    A process that is killed loses the task that it ran, and no other.
    """
    killed = (
        f"a process that {work} was killed (is memory short?): "
        "run the same command again to continue, with fewer --workers"
    )
    waiting = deque(tasks)
    running: dict[Future[Any], tuple[Task, Submit]] = {}
    with ExitStack() as stack:
        free = [stack.enter_context(process()) for _ in range(min(workers, len(tasks)))]
        while waiting or running:
            while waiting and free:
                submit = free.pop()
                try:
                    future = submit(function, *waiting[0])
                except BrokenProcessPool:  # killed while it had nothing to do
                    free.append(stack.enter_context(process()))
                else:
                    running[future] = waiting.popleft(), submit
            interruptible()
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task, submit = running.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    free.append(stack.enter_context(process()))
                    yield task, None, killed
                else:
                    free.append(submit)
                    yield task, result, None


EXECUTORS: Mapping[str, Callable[[Callable[..., Any], Sequence[Task], int, str], Iterator[Ended]]] = {
    "local": in_processes,
    "ray": on_ray,
}
_chosen: ContextVar[str] = ContextVar("executor", default="local")


@contextmanager
def process() -> Iterator[Submit]:
    """Yield `submit` for another process; Ctrl-C and exceptions inside the block kill it at once."""
    # A fresh interpreter, because threads of torch do not survive a fork.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    others = set(multiprocessing.active_children())
    with ours, theirs, ProcessPoolExecutor(1, context, _follow, (theirs,)) as pool:

        def submit(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
            with _isolated():
                return pool.submit(function, *arguments)

        try:
            yield submit
        except BaseException:
            ours.close()
            for worker in set(multiprocessing.active_children()) - others:  # which may be too busy to notice
                worker.kill()
            raise


@contextmanager
def _isolated() -> Iterator[None]:
    """Isolate the processes that are started inside the block from the main script, Ctrl-C and the display.

    A spawned process would import the main script, and a script without a main guard would run again in each. SIGINT
    stays blocked while they import. MuJoCo must not start a process of its own to look for a display: workers never
    render.
    """
    main = sys.modules["__main__"]
    known = {name: value for name, value in vars(main).items() if name in ("__file__", "__spec__")}
    for name, value in SLEEPING.items():
        os.environ.setdefault(name, value)
    display = os.environ.get("MUJOCO_GL")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    # Another thread may get the signal, and this one would be interrupted before its new process has all it needs.
    handler, interrupts = signal.getsignal(signal.SIGINT), list[int]()
    is_deferred = threading.current_thread() is threading.main_thread() and handler is not None
    if is_deferred:
        signal.signal(signal.SIGINT, lambda number, frame: interrupts.append(number))
    try:
        os.environ["MUJOCO_GL"] = "disable"
        vars(main).update(__file__=None, __spec__=None)
        yield
    finally:
        del main.__file__
        vars(main).update(known)
        if is_deferred:
            signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if display is None:
            del os.environ["MUJOCO_GL"]
        else:
            os.environ["MUJOCO_GL"] = display
    if interrupts:
        signal.raise_signal(signal.SIGINT)


def _follow(parent: Connection) -> None:
    """Exit when the parent's end of the pipe closes, as it does when the parent is interrupted or killed."""

    def listen() -> None:
        parent.poll(None)
        os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
