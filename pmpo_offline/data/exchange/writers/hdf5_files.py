"""To HDF5: a Minari directory, and the flat files of D4RL and d3rlpy.

D4RL, one flat file with a row a step:
observations, next_observations (N, O)   actions (N, A)   rewards (N,)
terminals (N,)  the task ended the episode                timeouts (N,)  the horizon cut it
scores (N,)     NaN where absent                          labels (N,)    +1, −1, 0 unlabelled
metadata/…      episodes and candidates, one dataset a column, and what the dataset is (see `exported`)

d3rlpy, the file that its own `ReplayBuffer.load` opens (the dump of version 2.1):
columns, num_episodes, version            d3rlpy reads them first
observations_<e> (T, O)   actions_<e> (T, A)   rewards_<e> (T, 1)   terminated_<e> ()      episode e, cut exactly
scores, labels (N,)       a row a step, all episodes in order; d3rlpy ignores them
metadata/…                as in D4RL's; the episodes have the final observations

d3rlpy has no place for an episode's final observation: it takes zeros after a terminated episode, and never draws the
last step of a truncated one (nor a truncated episode of one step at all). All other steps it reads as they are.
"""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np

from pmpo_offline.data import Dataset, columns, hdf5
from pmpo_offline.data.exchange.exported import about
from pmpo_offline.data.exchange.writers import Writer
from pmpo_offline.data.exchange.writers.parquet import blocks
from pmpo_offline.runtime import progress

_D4RL = {
    "observations": "observation",
    "actions": "action",
    "next_observations": "next_observation",
    "rewards": "reward",
    "terminals": "terminated",
    "timeouts": "truncated",
    "scores": "score",
    "labels": "label",
}


def _write_minari(folder: Path, dataset: Dataset) -> None:
    hdf5.write(folder, dataset.metadata, dataset.tables)


def _write_d4rl(folder: Path, dataset: Dataset) -> None:
    following = dataset.table["observation"].nbytes
    with hdf5.new_file(folder / f"{file_name(dataset)}.hdf5", dataset.tables.values(), following) as file:
        for rows, block in blocks(dataset):
            arrays = {name: columns.values(block, column) for name, column in _D4RL.items()}
            if rows.start == 0:
                for name, values in arrays.items():
                    file.create_dataset(name, (len(dataset), *values.shape[1:]), values.dtype)
            for name, values in arrays.items():
                file[name][rows] = values
        write_about(file, dataset)


def _write_d3rlpy(folder: Path, dataset: Dataset) -> None:
    steps, episodes = dataset.table, dataset.others["episodes"]
    terminated, count = columns.vector(episodes, "terminated"), episodes.num_rows
    with hdf5.new_file(folder / f"{file_name(dataset)}.h5", dataset.tables.values(), 4096 * count) as file:
        file.create_dataset("columns", data=["observations", "actions", "rewards", "terminated"])
        file.create_dataset("num_episodes", data=count)
        file.create_dataset("version", data="2.1")
        rows = columns.by_episode(steps, episodes, "observation", "action", "reward")
        for index, own in enumerate(progress.counted(rows, "write rows", count)):
            hdf5.put(file.id, f"observations_{index}", own["observation"])
            hdf5.put(file.id, f"actions_{index}", own["action"])
            hdf5.put(file.id, f"rewards_{index}", own["reward"][:, None])
            hdf5.put(file.id, f"terminated_{index}", np.array(terminated[index]))
        hdf5.put(file.id, "scores", columns.vector(steps, "score"))
        hdf5.put(file.id, "labels", columns.labels(steps))
        write_about(file, dataset)


def write_about(file: h5py.File, dataset: Dataset) -> None:
    """Write what the dataset is, its episodes and its candidates, in the group `metadata`, and a few attributes.

    D4RL's readers expect a row a step in every dataset of a file, except in those with "metadata" in their names.
    """
    for name, values in about(dataset):
        if values.dtype == object:
            file.create_dataset(name, data=values, dtype=h5py.string_dtype("utf-8"))
        else:
            file[name] = values
    metadata = dataset.metadata
    attributes = {"id": metadata.id, "task": metadata.task, "label": str(metadata.label), "licence": metadata.licence}
    file.attrs.update(attributes)
    if references := metadata.references:
        versions = json.dumps(references.versions)
        file.attrs.update({"ref_min_score": references.min, "ref_max_score": references.max, "ref_versions": versions})


def file_name(dataset: Dataset) -> str:
    """Return the name of an export's file, without its ending."""
    return dataset.metadata.id.rpartition("/")[2]


MINARI = Writer(
    "a Minari directory; labels are `infos/label`",
    _write_minari,
    lambda dataset: [
        "# with MINARI_DATASETS_PATH set to the folder that was chosen for the export",
        f'import minari; dataset = minari.load_dataset("{dataset.metadata.id}")',
    ],
    "An episode has one observation more than actions: after the last step comes the final observation. So it is with "
    "infos: entry t + 1 belongs to step t, and entry 0 to the reset. `infos/label` is 1 for accept, -1 for reject and "
    "0 where unlabelled; an absent `infos/score` is NaN.",
    place=lambda directory, dataset: directory / dataset.metadata.id,
    discrete=True,
)
D4RL = Writer(
    "one flat HDF5 file in D4RL's layout",
    _write_d4rl,
    lambda dataset: [
        "import h5py",
        f'with h5py.File("{file_name(dataset)}.hdf5") as file:',
        '    dataset = {name: file[name][()] for name in file if name != "metadata"}',
    ],
    "One row a step, in order; `next_observations` is what was observed after it, at the end of an episode too. "
    "`terminals` is the task's end, `timeouts` the horizon's. `labels` is 1 for accept, -1 for reject and 0 where "
    "unlabelled; an absent score is NaN.",
    discrete=True,
)
D3RLPY = Writer(
    "the HDF5 file that d3rlpy's `ReplayBuffer.load` opens",
    _write_d3rlpy,
    lambda dataset: [
        "from d3rlpy.dataset import InfiniteBuffer, ReplayBuffer",
        f'with open("{file_name(dataset)}.h5", "rb") as file:',
        "    dataset = ReplayBuffer.load(file, InfiniteBuffer())",
    ],
    "Episodes are cut exactly. d3rlpy has no place for final observations (`metadata/episodes/final_observation`): it "
    "takes zeros after a terminated episode and never draws the last step of a truncated one. `labels` is 1 for "
    "accept, -1 for reject and 0 where unlabelled, a row a step; an absent score is NaN.",
    discrete=True,
)
