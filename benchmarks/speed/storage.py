"""Writing, opening, reading and sampling a dataset of transitions, beside the other formats of offline data.

    python -m benchmarks.speed.storage                         # 1M transitions in 1,000 episodes, about three minutes
    python -m benchmarks.speed.storage --rows 20000000 --only ours d4rl huggingface

Each contender writes the same steps (17 observations, 6 actions, a reward, ends) in one process, and opens, reads and
samples them in another, so that memory is its own. A minibatch is the observation, action and reward of 256 random
transitions, with indices drawn beforehand. Times are of the processor, one thread, files in the system's cache; memory
is the peak beyond that after the imports, pages of mapped files included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "ARROW_IO_THREADS": "1"}

import numpy as np
from numpy.typing import NDArray

from benchmarks.experiments import shared
from benchmarks.speed import rows
from benchmarks.speed.rows import ACTION, OBSERVATION
from pmpo_offline.data import Experience

BATCH = 256
GOALS = "Goals: 1M transitions written in at most 1 s, opened in at most 5 ms."
COLUMNS = ("format", "write, s", "disk, MB", "open, ms", "read all, s", "transitions/s of minibatches", "memory, MiB")

Rows = NDArray[np.int64]
Draw = Callable[[Rows], Any]


@dataclass(frozen=True)
class Opened:
    """An opened dataset."""

    read: Callable[[], float]
    """Read every observation, action and reward; returns their sum."""
    draw: Draw
    """Return the transitions of these rows, in any order."""
    batches: int = 2000
    """Minibatches that are drawn: fewer where they are slow."""


@dataclass(frozen=True)
class Contender:
    """A format, written and opened by its own library."""

    title: str
    write: Callable[[Path, Experience], None]
    open: Callable[[Path], Opened]


def steps(count: int, length: int) -> Experience:
    """Return random steps in episodes of equal length, half of them successes."""
    return rows.drawn(count, length, np.random.default_rng(0))


def _flat(experience: Experience) -> dict[str, NDArray[Any]]:
    ends = np.zeros(len(experience.reward), np.bool_)
    ends[np.cumsum(experience.length) - 1] = True
    return {
        "observations": experience.observation,
        "actions": experience.action,
        "rewards": experience.reward,
        "terminals": ends,
        "timeouts": np.zeros(len(ends), np.bool_),
    }


def _write_ours(form: Any) -> Callable[[Path, Experience], None]:
    def write(folder: Path, experience: Experience) -> None:
        from pmpo_offline import data

        data.write(folder / "set", *rows.labelled(experience), form=form)

    return write


def _open_ours(folder: Path) -> Opened:
    import torch

    from pmpo_offline import data
    from pmpo_offline.data import columns

    dataset = data.load_dataset(folder / "set")
    names = ("observation", "action", "reward")

    def read() -> float:
        return sum(
            float(block.sum(dtype=np.float64)) for name in names for block in columns.blocks(dataset.table, name)
        )

    return Opened(read, lambda rows: [dataset.column(name)[torch.from_numpy(rows)] for name in names])


def _write_minari(form: str) -> Callable[[Path, Experience], None]:
    def write(folder: Path, experience: Experience) -> None:
        os.environ["MINARI_DATASETS_PATH"] = str(folder)
        import gymnasium
        import minari
        from minari.data_collector.episode_buffer import EpisodeBuffer

        buffers, start = [], 0
        for index, length in enumerate(experience.length.tolist()):
            rows = slice(start, start + length)
            final = experience.final_observation[index : index + 1]
            buffer = EpisodeBuffer(
                id=index,
                observations=np.concatenate([experience.observation[rows], final]),
                actions=experience.action[rows],
                rewards=experience.reward[rows].tolist(),
                terminations=[False] * (length - 1) + [True],
                truncations=[False] * length,
            )
            buffers.append(buffer)
            start += length
        box = gymnasium.spaces.Box
        minari.create_dataset_from_buffers(
            "speed/steps-v0",
            buffers,
            observation_space=box(-np.inf, np.inf, (OBSERVATION,), np.float32),
            action_space=box(-1, 1, (ACTION,), np.float32),
            data_format=form,
        )

    return write


def _open_minari(folder: Path) -> Opened:
    os.environ["MINARI_DATASETS_PATH"] = str(folder)
    import minari

    dataset = minari.load_dataset("speed/steps-v0")
    length = dataset.total_steps // dataset.total_episodes

    def read() -> float:
        episodes = dataset.iterate_episodes()
        return sum(float(each.observations[:-1].sum() + each.actions.sum() + each.rewards.sum()) for each in episodes)

    def draw(rows: Rows) -> Any:  # episodes are what it can be asked for
        found = [(dataset[int(row) // length], int(row) % length) for row in rows]
        return [(episode.observations[at], episode.actions[at], episode.rewards[at]) for episode, at in found]

    return Opened(read, draw, batches=4)


def _write_d4rl(folder: Path, experience: Experience) -> None:
    import h5py

    with h5py.File(folder / "set.hdf5", "w") as file:
        for name, values in _flat(experience).items():
            file.create_dataset(name, data=values, compression="gzip")  # as D4RL's own script writes


def _write_h5py(folder: Path, experience: Experience) -> None:
    import h5py

    with h5py.File(folder / "set.hdf5", "w") as file:
        for name, values in _flat(experience).items():
            file[name] = values


def _open_d4rl(folder: Path) -> Opened:
    import h5py

    with h5py.File(folder / "set.hdf5") as file:  # `get_dataset` reads all of it
        arrays = {name: file[name][()] for name in file}
    names = ("observations", "actions", "rewards")
    return Opened(
        lambda: sum(float(arrays[name].sum(dtype=np.float64)) for name in names),
        lambda rows: [arrays[name][rows] for name in names],
    )


def _open_h5py(folder: Path) -> Opened:
    import h5py

    file = h5py.File(folder / "set.hdf5")
    names = ("observations", "actions", "rewards")

    def draw(rows: Rows) -> Any:
        ordered = np.unique(rows)  # it takes increasing indices only
        return [file[name][ordered] for name in names]

    return Opened(lambda: sum(float(file[name][()].sum(dtype=np.float64)) for name in names), draw, batches=10)


def _write_huggingface(folder: Path, experience: Experience) -> None:
    import pyarrow as pa

    import datasets
    from pmpo_offline.data import columns

    flat = {name: columns.list_array(v) if v.ndim > 1 else pa.array(v) for name, v in _flat(experience).items()}
    datasets.disable_progress_bars()
    datasets.Dataset(pa.table(flat)).save_to_disk(folder / "set")


def _open_huggingface(folder: Path) -> Opened:
    import datasets

    dataset = datasets.load_from_disk(folder / "set").with_format("numpy", ["observations", "actions", "rewards"])

    def read() -> float:
        batches = dataset.iter(batch_size=10_000)
        return sum(float(values.sum(dtype=np.float64)) for batch in batches for values in batch.values())

    return Opened(read, lambda rows: dataset[rows], batches=100)


CONTENDERS = {
    "ours": Contender("pmpo-offline, Arrow", _write_ours("arrow"), _open_ours),
    "ours-hdf5": Contender("pmpo-offline, HDF5", _write_ours("hdf5"), _open_ours),
    "minari": Contender("Minari, HDF5", _write_minari("hdf5"), _open_minari),
    "minari-arrow": Contender("Minari, Arrow", _write_minari("arrow"), _open_minari),
    "d4rl": Contender("D4RL's HDF5 (gzip), in memory", _write_d4rl, _open_d4rl),
    "h5py": Contender("h5py, flat, from the file", _write_h5py, _open_h5py),
    "huggingface": Contender("Hugging Face datasets", _write_huggingface, _open_huggingface),
}


def resident(field: str) -> float:
    """Return MiB of this process: VmRSS now, or VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def write(name: str, folder: Path, count: int, length: int) -> dict[str, float]:
    """Write in this process; the seconds include what the library checks and hashes."""
    experience, contender = steps(count, length), CONTENDERS[name]
    with tempfile.TemporaryDirectory(dir=folder) as first:  # imports
        contender.write(Path(first), steps(10, 5))
    start = time.process_time()
    contender.write(folder, experience)
    return {"write": time.process_time() - start}


def read(name: str, folder: Path, count: int) -> dict[str, float]:
    """Open, read and sample in this process; imports are made by opening once before."""
    import pandas  # noqa: F401 - pyarrow imports it at the first conversion to an array

    rng, contender = np.random.default_rng(1), CONTENDERS[name]
    if contender.open is _open_d4rl:
        import h5py  # noqa: F401 - opening is reading all
    else:
        contender.open(folder)
    before, start = resident("VmRSS"), time.process_time()
    opened = contender.open(folder)
    found = {"open": time.process_time() - start}
    start = time.process_time()
    opened.read()
    found["read"] = time.process_time() - start
    indices = rng.integers(0, count, (opened.batches, BATCH))
    opened.draw(indices[0])
    start = time.process_time()
    for each in indices:
        opened.draw(each)
    rate = indices.size / (time.process_time() - start)
    return found | {"rate": rate, "memory": resident("VmHWM") - before}


def measure(name: str, count: int, length: int, scratch: Path) -> dict[str, Any]:
    """Return a contender's figures, of two processes."""
    found: dict[str, Any] = {"name": name, "title": CONTENDERS[name].title}
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        for phase in ("write", "read"):
            asked = f"--phase {phase} --only {name} --rows {count} --length {length} --scratch".split()
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-m", "benchmarks.speed.storage", *asked, folder],
                check=True,
                stdout=subprocess.PIPE,
            )
            found |= json.loads(done.stdout.splitlines()[-1])
        found["disk"] = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return found


def cells(row: dict[str, Any]) -> list[str]:
    """Return a contender's row of the table."""
    return [
        row["title"],
        f"{row['write']:.2f}",
        f"{row['disk'] / 1e6:,.0f}",
        f"{row['open'] * 1e3:,.1f}",
        f"{row['read']:.2f}",
        f"{row['rate']:,.0f}",
        f"{row['memory']:,.0f}",
    ]


def markdown(found: dict[str, Any]) -> str:
    """Return the page that is committed."""
    packages = "numpy", "pyarrow", "h5py", "minari", "datasets", "torch"
    here = found["machine"]
    lines = [
        "# Speed of storage",
        "",
        f"{here['processor']}, one thread of {here['cores']} cores; load {here['load']} at the end; Python "
        f"{here['python']}, {', '.join(f'{name} {here[name]}' for name in packages)}. "
        "Written by `python -m benchmarks.speed.storage`.",
        "",
        f"{OBSERVATION} observations, {ACTION} actions; seconds of the processor, files in the system's cache. Ours "
        "checks the tables and hashes the files as it writes. A minibatch is 256 random transitions; Minari gives "
        "whole episodes, one for each of them. Memory is the peak of opening, reading and sampling, beyond the "
        "imports, mapped files included.",
    ]
    for size in found["sizes"]:
        lines += ["", f"## {size['rows']:,} transitions, {size['rows'] // size['length']:,} episodes", ""]
        lines += shared.table(COLUMNS, map(cells, size["contenders"]), "lrrrrrr")
    return "\n".join([*lines, "", GOALS]) + "\n"


def main() -> None:
    """Measure, print the page, and write it and its JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--length", type=int, nargs="+", default=[1000], help="of an episode, one for each of --rows")
    parser.add_argument("--only", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--out", type=Path, default=shared.RESULTS / "speed")
    parser.add_argument("--scratch", type=Path, help="folder for the datasets, a temporary one by default")
    parser.add_argument("--phase", choices=["write", "read"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    count, length = arguments.rows[0], arguments.length[0]
    if arguments.phase == "write":
        print(json.dumps(write(arguments.only[0], arguments.scratch, count, length)))
        return
    if arguments.phase == "read":
        print(json.dumps(read(arguments.only[0], arguments.scratch, count)))
        return
    sizes = []
    for count, length in zip(arguments.rows, arguments.length, strict=True):
        contenders = []
        for name in arguments.only:
            contenders.append(measure(name, count, length, arguments.scratch))
            print(", ".join(cells(contenders[-1])), file=sys.stderr)
        sizes.append({"rows": count, "length": length, "contenders": contenders})
    packages = ("numpy", "pyarrow", "h5py", "minari", "datasets", "torch")
    found = {"sizes": sizes, "machine": shared.machine(*packages, load=shared.load())}
    shared.publish(arguments.out / "storage", found, markdown(found))


if __name__ == "__main__":
    main()
