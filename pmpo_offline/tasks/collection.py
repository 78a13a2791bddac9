"""Collect experience: parallel processes write chunks of episodes, and a later run goes on where one stopped.

An episode is a function of its own seed and the recipe: neither the number of workers nor the chunk it falls into
changes it. A chunk is whole or absent; one process at a time collects into a folder (the caller holds its lock).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from pathlib import Path

from pmpo_offline.data.experience import Experience
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.processes import processes

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
        progress.report("collect episodes", done, episodes)

    if missing:
        try:
            _write_chunks(missing, record, workers, finished)
        finally:
            for unfinished in folder.glob(".chunk-*.tmp"):
                unfinished.unlink()
    return Experience.concatenate([Experience.load(path) for path in chunks])


def _write_chunks(
    chunks: Mapping[Path, list[int]], record: Record, workers: int, finished: Callable[[Path], None]
) -> None:
    with processes(min(workers, len(chunks)), "collected episodes") as submit:
        tasks = {submit(_write_chunk, record, path, seeds): path for path, seeds in chunks.items()}
        for task in as_completed(tasks):
            task.result()
            finished(tasks[task])


def _write_chunk(record: Record, path: Path, seeds: list[int]) -> None:
    record(seeds).save(path)
