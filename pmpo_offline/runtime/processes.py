"""Work in parallel processes that end with whoever started them, however that ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from pmpo_offline.runtime.errors import PmpoOfflineError

Submit = Callable[..., "Future[Any]"]
"""Called with a function of a module and its arguments, which go to another process; returns what will come of it."""


@contextmanager
def processes(count: int, work: str) -> Iterator[Submit]:
    """Offer up to `count` processes while the block lasts; Ctrl-C and failures in it end them at once.

    Raises `PmpoOfflineError` if one of them is killed; `work` says what they do, as in "a process that …".
    """
    # Fresh interpreters, because threads of torch do not survive a fork.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with ours, theirs, ProcessPoolExecutor(count, context, _follow, (theirs,)) as pool:

        def submit(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
            with _unaware():
                return pool.submit(function, *arguments)

        try:
            yield submit
        except BrokenProcessPool:
            raise PmpoOfflineError(
                f"a process that {work} was killed (is memory short?): "
                "run the same command again to go on, with fewer --workers"
            ) from None
        except BaseException:
            ours.close()
            raise


@contextmanager
def _unaware() -> Iterator[None]:
    """Start processes that know nothing of the script that called, nor of Ctrl-C, not even while they import.

    A spawned process would import the main script, and a script without a main guard would run again in each. And
    MuJoCo would look for a display by a process of its own, which has heard nothing of all this: nobody renders there.
    """
    main = sys.modules["__main__"]
    known = {name: value for name, value in vars(main).items() if name in ("__file__", "__spec__")}
    display = os.environ.get("MUJOCO_GL")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        os.environ["MUJOCO_GL"] = "disable"
        vars(main).update(__file__=None, __spec__=None)
        yield
    finally:
        del main.__file__
        vars(main).update(known)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if display is None:
            del os.environ["MUJOCO_GL"]
        else:
            os.environ["MUJOCO_GL"] = display


def _follow(parent: Connection) -> None:
    """End this process when the parent hangs up: it was interrupted, or killed and could not say so."""

    def listen() -> None:
        parent.poll(None)
        os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
