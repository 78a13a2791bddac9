"""Collect experience: parallel processes write chunks of episodes, and a later run goes on where one stopped.

An episode is a function of its own seed and the recipe: neither the number of workers nor the chunk it falls into
changes it. A chunk is whole or absent; one process at a time collects into a folder (the caller holds its lock).
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from pmpo_offline.data.experience import Experience
from pmpo_offline.errors import PmpoOfflineError, UserError

SEEDS_APART = 1_000_000
"""Episodes that a dataset's seed has to itself."""
Record = Callable[[Sequence[int]], Experience]
"""Plays one episode a seed; it goes to other processes, so it is a function of a module or a `partial` of one."""


def collect(
    record: Record,
    episodes: int,
    seed: int,
    workers: int,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
    chunk: int = 100,
) -> Experience:
    """Record `episodes`, `chunk` of them at once; finished chunks are kept in `folder`.

    Raises `PmpoOfflineError` if a process was killed or a kept chunk is damaged.
    """
    if episodes > SEEDS_APART:
        raise UserError(f"{episodes:,} episodes are more than the {SEEDS_APART:,} that a seed has: use several seeds")
    folder.mkdir(parents=True, exist_ok=True)
    chunks = {
        folder / f"chunk-{start:07d}.npz": [seed * SEEDS_APART + i for i in range(start, min(start + chunk, episodes))]
        for start in range(0, episodes, chunk)
    }
    missing = {path: seeds for path, seeds in chunks.items() if not path.exists()}
    done = episodes - sum(map(len, missing.values()))

    def finished(path: Path) -> None:
        nonlocal done
        done += len(missing[path])
        if progress:
            progress(done, episodes)

    if missing:
        try:
            _write_chunks(missing, record, workers, finished)
        finally:
            for unfinished in folder.glob("chunk-*.tmp"):
                unfinished.unlink()
    return Experience.concatenate([Experience.load(path) for path in chunks])


def _write_chunks(
    chunks: Mapping[Path, list[int]], record: Record, workers: int, finished: Callable[[Path], None]
) -> None:
    """Write chunks of episodes in parallel processes; however this ends, they end with it."""
    # Fresh interpreters, because threads of torch do not survive a fork.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with ours, theirs, ProcessPoolExecutor(min(workers, len(chunks)), context, _follow, (theirs,)) as pool:
        try:
            with _unaware():
                tasks = {pool.submit(_write_chunk, record, path, seeds): path for path, seeds in chunks.items()}
            for task in as_completed(tasks):
                task.result()
                finished(tasks[task])
        except BrokenProcessPool:
            raise PmpoOfflineError(
                "a process that collected episodes was killed (is memory short?): "
                "run the same command again to go on, with fewer --workers"
            ) from None
        except BaseException:
            ours.close()
            raise


@contextmanager
def _unaware() -> Iterator[None]:
    """Start processes that know nothing of the script that called, nor of Ctrl-C, not even while they import.

    A spawned process would import the main script, and a script without a main guard would build again in each. And
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


def _write_chunk(record: Record, path: Path, seeds: list[int]) -> None:
    record(seeds).save(path)
