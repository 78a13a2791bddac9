"""To OGBench: the .npz that its `load_dataset` reads, T+1 states an episode.

observations (M, O), actions (M, A)   after an episode's last step comes its final observation, with an action of zeros
terminals (M,)                        1 in the last state of an episode
rewards, masks (M,)                   of the step at that state; masks, where success is known, is 0 at the last step of
                                      an episode that was solved
scores, labels (M,)                   NaN where absent; +1, −1, 0 unlabelled
metadata/…                            episodes, candidates and what the dataset is (see `exported`)

OGBench itself reads the first three; its single tasks compute rewards and masks from a goal.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pmpo_offline.data import Dataset, columns
from pmpo_offline.data.exchange.exported import about
from pmpo_offline.data.exchange.writers import Writer
from pmpo_offline.data.exchange.writers.hdf5_files import file_name
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.arrays import add_array


def _write(folder: Path, dataset: Dataset) -> None:
    episodes = dataset.others["episodes"]
    states = len(dataset) + episodes.num_rows
    ends = columns.vector(episodes, "start") + columns.vector(episodes, "length")
    success, known = columns.vector(episodes, "success"), "success" not in dataset.unknown

    def spread(name: str, final: Any) -> Iterator[NDArray[Any]]:
        """Yield a column's values with those of the final states after each episode's."""
        for own, starts, found in columns.groups(dataset.table, episodes, name):
            yield np.insert(found[name], starts[1:], final[own] if isinstance(final, np.ndarray) else final, axis=0)

    def constant(value: float, at: NDArray[np.int64], other: float) -> NDArray[np.float32]:
        values = np.full(states, value, np.float32)
        values[at] = other
        return values

    final = ends + np.arange(len(ends))  # of the states
    width = {name: dataset.table.schema.field(name).type.list_size for name in ("observation", "action")}
    with zipfile.ZipFile(folder / f"{file_name(dataset)}.npz", "w") as archive:
        finals = columns.matrix(episodes, "final_observation")
        add_array(archive, "observations", (states, width["observation"]), spread("observation", finals))
        add_array(archive, "actions", (states, width["action"]), spread("action", 0))
        add_array(archive, "terminals", (states,), iter([constant(0, final, 1)]))
        add_array(archive, "rewards", (states,), spread("reward", 0))
        if known:
            add_array(archive, "masks", (states,), iter([constant(1, final[success] - 1, 0)]))
        add_array(archive, "scores", (states,), spread("score", np.nan))
        add_array(archive, "labels", (states,), spread("label", 0))
        for name, values in about(dataset):
            stored = values.astype(str) if values.dtype == object else values
            add_array(archive, name, stored.shape, iter([stored]))
    progress.report("write rows", len(dataset), len(dataset))


OGBENCH = Writer(
    "OGBench's .npz, T+1 states an episode",
    _write,
    lambda dataset: [
        "from ogbench.utils import load_dataset",
        f'dataset = load_dataset("{file_name(dataset)}.npz", compact_dataset=False)',
    ],
    "An episode is T+1 states; nothing was done in the last one, which `terminals` marks. `masks` is 0 at the last "
    "step of an episode that was solved. `labels` is 1 for accept, -1 for reject and 0 where unlabelled, in rows "
    "of steps; an absent score is NaN.",
)
