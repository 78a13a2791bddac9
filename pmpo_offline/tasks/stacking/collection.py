"""Collect stacking experience: parallel processes write chunks of episodes, and a later run goes on where one stopped.

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

import numpy as np
from numpy.typing import NDArray

from pmpo_offline.errors import PmpoOfflineError
from pmpo_offline.tasks.experience import Experience
from pmpo_offline.tasks.stacking.behaviors import Behavior, Script, correlated_noise
from pmpo_offline.tasks.stacking.episodes import HORIZON, play
from pmpo_offline.tasks.stacking.observation import OBSERVATION_DIM, observe
from pmpo_offline.tasks.stacking.shapes import random_triplet
from pmpo_offline.tasks.stacking.simulation import ACTION_DIM, Array, Layout, Scene, Simulation, random_layout

_CHUNK = 100
_SEEDS_APART = 1_000_000  # episodes a dataset seed has to itself


def collect(
    behaviors: Sequence[Behavior],
    episodes: int,
    seed: int,
    workers: int,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> Experience:
    """Play episodes of the mixture of `behaviors` on random triplets; finished chunks are kept in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    chunks = {
        folder / f"chunk-{start:07d}.npz": [
            seed * _SEEDS_APART + i for i in range(start, min(start + _CHUNK, episodes))
        ]
        for start in range(0, episodes, _CHUNK)
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
            _write_chunks(missing, tuple(behaviors), workers, finished)
        finally:
            for unfinished in folder.glob("chunk-*.tmp"):
                unfinished.unlink()
    return Experience.concatenate([Experience.load(path) for path in chunks])


def _write_chunks(
    chunks: Mapping[Path, list[int]], behaviors: tuple[Behavior, ...], workers: int, finished: Callable[[Path], None]
) -> None:
    """Write chunks of episodes in parallel processes; however this ends, they end with it."""
    # Fresh interpreters, because threads of torch do not survive a fork.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with ours, theirs, ProcessPoolExecutor(min(workers, len(chunks)), context, _follow, (theirs,)) as pool:
        try:
            with _unaware():
                tasks = {pool.submit(_write_chunk, path, behaviors, seeds): path for path, seeds in chunks.items()}
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

    A spawned process would import the main script, and a script without a main guard would build again in each.
    """
    main = sys.modules["__main__"]
    known = {name: value for name, value in vars(main).items() if name in ("__file__", "__spec__")}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        vars(main).update(__file__=None, __spec__=None)
        yield
    finally:
        del main.__file__
        vars(main).update(known)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _follow(parent: Connection) -> None:
    """End this process when the parent hangs up: it was interrupted, or killed and could not say so."""

    def listen() -> None:
        parent.poll(None)
        os._exit(1)

    threading.Thread(target=listen, daemon=True).start()


def _write_chunk(path: Path, behaviors: tuple[Behavior, ...], seeds: list[int]) -> None:
    record(behaviors, seeds).save(path)


def record(behaviors: Sequence[Behavior], seeds: Sequence[int]) -> Experience:
    """Play one episode a seed and return every step of it, episode after episode."""
    weights = np.array([behavior.weight for behavior in behaviors])
    layouts: list[Layout] = []
    chosen: list[Behavior] = []
    noise = np.empty((len(seeds), HORIZON, ACTION_DIM))
    for i, seed in enumerate(seeds):
        rng = np.random.default_rng(seed)
        chosen.append(behaviors[rng.choice(len(behaviors), p=weights / weights.sum())])
        layouts.append(random_layout(rng, random_triplet(rng)))
        noise[i] = correlated_noise(np.array(chosen[-1].noise), HORIZON, rng)
    script = Script.of(chosen)
    observation = np.empty((len(seeds), HORIZON + 1, OBSERVATION_DIM), np.float32)
    action = np.empty((len(seeds), HORIZON, ACTION_DIM), np.float32)
    reward = np.empty((len(seeds), HORIZON), np.float32)
    time = np.zeros(len(seeds), np.int64)

    def choose(scene: Scene, active: NDArray[np.intp], t: int) -> Array:
        # What is stored is what was applied, to the last bit.
        action: Array = np.clip(script.take(active).act(scene) + noise[active, t], -1, 1).astype(np.float32)
        return action.astype(np.float64)

    def watch(simulation: Simulation, scene: Scene, active: NDArray[np.intp], taken: Array, gained: Array) -> None:
        t = time[active]
        observation[active, t] = observe(scene)
        action[active, t], reward[active, t] = taken, gained
        time[active] += 1
        observation[active, t + 1] = observe(simulation.scene(active))

    outcome = play(layouts, choose, watch=watch)
    steps = np.arange(HORIZON) < outcome.length[:, None]
    return Experience(
        observation=observation[:, :-1][steps],
        action=action[steps],
        reward=reward[steps],
        length=outcome.length,
        success=outcome.success,
        terminated=outcome.success,
        final_observation=observation[np.arange(len(seeds)), outcome.length],
        behavior=np.array([behavior.name for behavior in chosen]),
        seed=np.array(seeds, np.int64),
    )
