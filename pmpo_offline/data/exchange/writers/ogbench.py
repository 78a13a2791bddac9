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

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pmpo_offline.data import Dataset, columns
from pmpo_offline.data.exchange.exported import about, knows_success
from pmpo_offline.data.exchange.writers import Writer
from pmpo_offline.data.exchange.writers.hdf5_files import file_name
from pmpo_offline.runtime import progress


def _write(folder: Path, dataset: Dataset) -> None:
    steps, episodes = dataset.table, dataset.episodes
    last = columns.vector(episodes, "start") + columns.vector(episodes, "length") - 1
    solved = np.zeros(len(dataset), np.float32)
    solved[last] = columns.vector(episodes, "success")

    def spread(values: NDArray[Any], final: Any) -> NDArray[Any]:
        return np.insert(values, last + 1, final, axis=0)

    arrays: dict[str, Any] = {
        "observations": spread(columns.matrix(steps, "observation"), columns.matrix(episodes, "final_observation")),
        "actions": spread(columns.matrix(steps, "action"), 0),
        "terminals": spread(np.zeros(len(dataset), np.float32), 1),
        "rewards": spread(columns.vector(steps, "reward"), 0),
        **({"masks": spread(1 - solved, 1)} if knows_success(dataset.metadata) else {}),
        "scores": spread(columns.vector(steps, "score"), np.nan),
        "labels": spread(columns.labels(steps), 0),
    }
    arrays |= {name: values.astype(str) if values.dtype == object else values for name, values in about(dataset)}
    progress.report("write rows", 0, len(dataset))
    np.savez(folder / f"{file_name(dataset)}.npz", **arrays)
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
