"""To D4RL: one flat HDF5 file with a row a step.

observations, next_observations (N, O)   actions (N, A)   rewards (N,)
terminals (N,)  the task ended the episode                timeouts (N,)  the horizon cut it
scores (N,)     NaN where absent                          labels (N,)    +1, −1, 0 unlabelled
metadata/…      episodes and candidates, one dataset a column (see `flat`)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pmpo_offline.data import columns, hdf5
from pmpo_offline.data.dataset import Dataset
from pmpo_offline.data.exchange.writers import flat
from pmpo_offline.data.exchange.writers.steps import blocks
from pmpo_offline.data.exchange.writers.writer import Writer
from pmpo_offline.runtime import progress

_ENDING = ".hdf5"
_MATRICES = {"observations": "observation", "actions": "action", "next_observations": "next_observation"}
_VECTORS = {
    "rewards": ("reward", np.float32),
    "terminals": ("terminated", np.bool_),
    "timeouts": ("truncated", np.bool_),
    "scores": ("score", np.float32),
}

NOTE = (
    "One row a step, in order; `next_observations` is what was observed after it, at the end of an episode too. "
    "`terminals` is the task's end, `timeouts` the horizon's. `labels` is 1 for accept, -1 for reject and 0 where "
    "unlabelled; an absent score is NaN."
)


def write(folder: Path, dataset: Dataset) -> None:
    """Write `<name>.hdf5` into `folder`."""
    with hdf5.new_file(folder / flat.file_name(dataset, _ENDING), flat.size(dataset)) as file:
        n, schema = len(dataset), dataset.table.schema
        for name, column in _MATRICES.items():
            width = schema.field(column.removeprefix("next_")).type.list_size
            file.create_dataset(name, (n, width), np.float32)
        for name, (_, dtype) in _VECTORS.items():
            file.create_dataset(name, (n,), dtype)
        file.create_dataset("labels", (n,), np.int8)
        for rows, block in blocks(dataset):
            for name, column in _MATRICES.items():
                file[name][rows] = columns.matrix(block, column)
            for name, (column, _) in _VECTORS.items():
                file[name][rows] = columns.vector(block, column)
            file["labels"][rows] = columns.labels(block)
            progress.report("write rows", rows.stop, n)
        flat.write_about(file, dataset)


def loading(dataset: Dataset) -> list[str]:
    """Return the lines of Python that open it."""
    return [
        "import h5py",
        f'with h5py.File("{flat.file_name(dataset, _ENDING)}") as file:',
        '    dataset = {name: file[name][()] for name in file if name != "metadata"}',
    ]


D4RL = Writer(write, loading, NOTE)
