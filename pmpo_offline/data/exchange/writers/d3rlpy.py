"""To d3rlpy: the HDF5 file that its own `ReplayBuffer.load` opens (the dump of version 2.1).

columns, num_episodes, version            what d3rlpy asks for first
observations_<e> (T, O)   actions_<e> (T, A)   rewards_<e> (T, 1)   terminated_<e> ()      episode e, cut exactly
scores, labels (N,)       a row a step, all episodes in order; d3rlpy leaves them alone
metadata/…                episodes, with the final observations, and candidates (see `flat`)

d3rlpy has no place for an episode's final observation: it takes zeros after a terminated episode, and never draws the
last step of a truncated one (nor a truncated episode of one step at all). All other steps it sees as they are.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from pmpo_offline.data import columns, hdf5
from pmpo_offline.data.dataset import Dataset
from pmpo_offline.data.exchange.writers import flat
from pmpo_offline.data.exchange.writers.writer import Writer
from pmpo_offline.runtime import progress

_ENDING = ".h5"
_VERSION = "2.1"
_COLUMNS = ["observations", "actions", "rewards", "terminated"]

NOTE = (
    "Episodes are cut exactly. d3rlpy has no place for final observations (`metadata/episodes/final_observation`): it "
    "takes zeros after a terminated episode and never draws the last step of a truncated one. `labels` is 1 for "
    "accept, -1 for reject and 0 where unlabelled, a row a step; an absent score is NaN."
)


def write(folder: Path, dataset: Dataset) -> None:
    """Write `<name>.h5` into `folder`."""
    count = dataset.metadata.counts.episodes
    with hdf5.new_file(folder / flat.file_name(dataset, _ENDING), flat.size(dataset) + 4096 * count) as file:
        file.create_dataset("columns", data=_COLUMNS)
        file.create_dataset("num_episodes", data=count)
        file.create_dataset("version", data=_VERSION)
        _write_episodes(file, dataset)
        hdf5.put(file.id, "scores", columns.vector(dataset.table, "score"))
        hdf5.put(file.id, "labels", columns.labels(dataset.table))
        flat.write_about(file, dataset)


def _write_episodes(file: h5py.File, dataset: Dataset) -> None:
    steps, episodes = dataset.table, dataset.episodes
    vectors = {
        "observations": columns.matrix(steps, "observation"),
        "actions": columns.matrix(steps, "action"),
        "rewards": columns.vector(steps, "reward")[:, None],
    }
    start, terminated = columns.vector(episodes, "start"), columns.vector(episodes, "terminated")
    ends = start + columns.vector(episodes, "length")
    count = len(start)
    for index, (first, end) in enumerate(zip(start.tolist(), ends.tolist(), strict=True)):
        for name, values in vectors.items():
            hdf5.put(file.id, f"{name}_{index}", values[first:end])
        hdf5.put(file.id, f"terminated_{index}", np.array(terminated[index]))
        if index % 64 == 63 or index == count - 1:
            progress.report("write rows", index + 1, count)


def loading(dataset: Dataset) -> list[str]:
    """Return the lines of Python that open it."""
    return [
        "from d3rlpy.dataset import InfiniteBuffer, ReplayBuffer",
        f'with open("{flat.file_name(dataset, _ENDING)}", "rb") as file:',
        "    dataset = ReplayBuffer.load(file, InfiniteBuffer())",
    ]


D3RLPY = Writer(write, loading, NOTE)
