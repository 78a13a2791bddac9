"""Formats of offline data, each written, opened, read and sampled by its own library, for `storage.py`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed import rows
from benchmarks.speed.rows import ACTION, OBSERVATION
from pmpo_offline.data import Experience

BATCH = 256

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
    """Minibatches that are drawn: fewer where they are slow, which then are not drawn together either."""


@dataclass(frozen=True)
class Contender:
    """A format, written and opened by its own library."""

    title: str
    write: Callable[[Path, Experience], None]
    open: Callable[[Path], Opened]
    environment: str = ".venv"
    """The folder of the virtual environment that its library is in."""
    most: tuple[int, int] = (10**9, 10**9)
    """Transitions and episodes beyond which its own library takes longer than anybody waits."""


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
        return _in_memory({name: file[name][()] for name in file})


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


def _write_numpy(folder: Path, experience: Experience) -> None:
    for name, values in _flat(experience).items():
        np.save(folder / f"{name}.npy", values)


def _open_numpy(folder: Path) -> Opened:
    return _in_memory({path.stem: np.load(path) for path in sorted(folder.glob("*.npy"))})


def _in_memory(arrays: dict[str, NDArray[Any]]) -> Opened:
    names = ("observations", "actions", "rewards")
    return Opened(
        lambda: sum(float(arrays[name].sum(dtype=np.float64)) for name in names),
        lambda rows: [arrays[name].take(rows, 0) for name in names],
    )


def _write_d3rlpy(folder: Path, experience: Experience) -> None:
    import d3rlpy

    flat = _flat(experience)
    dataset = d3rlpy.dataset.MDPDataset(**flat, action_space=d3rlpy.ActionSpace.CONTINUOUS)
    with (folder / "set.h5").open("w+b") as file:
        dataset.dump(file)


def _open_d3rlpy(folder: Path) -> Opened:
    import d3rlpy

    with (folder / "set.h5").open("rb") as file:
        buffer = d3rlpy.dataset.ReplayBuffer.load(file, d3rlpy.dataset.InfiniteBuffer())

    def read() -> float:
        return sum(float(e.observations.sum() + e.actions.sum() + e.rewards.sum()) for e in buffer.episodes)

    return Opened(read, lambda rows: buffer.sample_transition_batch(len(rows)), batches=100)  # it draws rows itself


def _write_lerobot(folder: Path, experience: Experience) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    flat = _flat(experience)
    names = {
        "observation.state": "observations",
        "action": "actions",
        "next.reward": "rewards",
        "next.done": "terminals",
    }
    columns = {name: values.reshape(len(values), -1) for name, values in ((n, flat[o]) for n, o in names.items())}
    features = {
        name: {"dtype": str(values.dtype), "shape": values.shape[1:], "names": None} for name, values in columns.items()
    }
    dataset = LeRobotDataset.create("speed/steps", fps=20, features=features, root=folder / "set", use_videos=False)
    for row in range(len(experience.reward)):
        dataset.add_frame({"task": "run", **{name: values[row] for name, values in columns.items()}})
        if columns["next.done"][row]:
            dataset.save_episode()
    dataset.finalize()


def _open_lerobot(folder: Path) -> Opened:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset("speed/steps", root=folder / "set")
    names = ("observation.state", "action", "next.reward")

    def read() -> float:
        batches = dataset.hf_dataset.with_format("numpy", list(names)).iter(batch_size=10_000)
        return sum(float(values.sum(dtype=np.float64)) for batch in batches for values in batch.values())

    return Opened(read, lambda rows: [dataset[row] for row in rows.tolist()], batches=10)


CONTENDERS = {
    "ours": Contender("pmpo-offline, Arrow", _write_ours("arrow"), _open_ours),
    "ours-hdf5": Contender("pmpo-offline, HDF5", _write_ours("hdf5"), _open_ours, most=(10**9, 25_000)),
    "numpy": Contender("NumPy's .npy, packed in memory", _write_numpy, _open_numpy),
    "minari": Contender("Minari, HDF5", _write_minari("hdf5"), _open_minari, most=(10**9, 25_000)),
    "minari-arrow": Contender("Minari, Arrow", _write_minari("arrow"), _open_minari, most=(10**6, 1000)),
    "d4rl": Contender("D4RL's HDF5 (gzip), in memory", _write_d4rl, _open_d4rl),
    "h5py": Contender("h5py, flat, from the file", _write_h5py, _open_h5py),
    "huggingface": Contender("Hugging Face datasets", _write_huggingface, _open_huggingface),
    "d3rlpy": Contender("d3rlpy, in memory", _write_d3rlpy, _open_d3rlpy, ".venv-peers", most=(10**9, 25_000)),
    "lerobot": Contender("LeRobot", _write_lerobot, _open_lerobot, ".venv-robots", most=(10**5, 1000)),
}
