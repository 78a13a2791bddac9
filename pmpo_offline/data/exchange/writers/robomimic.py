"""To robomimic: one HDF5 file that its `SequenceDataset` reads.

data/              attributes: total (steps), env_args (JSON; robomimic needs one to evaluate)
  demo_<e>/        attribute: num_samples
    obs/state, next_obs/state (T, O)   actions (T, A)   rewards, dones (T,)
    scores (T,)    NaN where absent    labels (T,)      +1, −1, 0 unlabelled
mask/              names of episodes: accepted, rejected (where labels are of episodes), behavior-<name>
metadata/          the episodes, the candidates and what the dataset is (see `exported`)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pmpo_offline.data import Dataset, columns, hdf5
from pmpo_offline.data.exchange.writers import Writer
from pmpo_offline.data.exchange.writers.hdf5_files import file_name, write_about
from pmpo_offline.runtime import progress

STATE = "state"
"""The one observation of our files."""


def _write(folder: Path, dataset: Dataset) -> None:
    steps, episodes = dataset.table, dataset.others["episodes"]
    final, count = columns.matrix(episodes, "final_observation"), episodes.num_rows
    names = "observation", "action", "reward", "terminated", "truncated", "score", "label"
    rows = columns.by_episode(steps, episodes, *names)
    size = steps["observation"].nbytes + 8192 * count
    with hdf5.new_file(folder / f"{file_name(dataset)}.hdf5", dataset.tables.values(), size) as file:
        data = file.create_group("data")
        data.attrs["total"] = len(dataset)
        data.attrs["env_args"] = json.dumps({"env_name": dataset.metadata.task, "type": None, "env_kwargs": {}})
        for index, own in enumerate(progress.counted(rows, "write rows", count)):
            demo = data.create_group(f"demo_{index}")
            demo.attrs["num_samples"] = len(own["reward"])
            states = np.concatenate([own["observation"], final[index : index + 1]])
            for name, values in (("obs", states[:-1]), ("next_obs", states[1:])):
                hdf5.put(demo.create_group(name).id, STATE, values)
            for name, values in {
                "actions": own["action"],
                "rewards": own["reward"],
                "dones": (own["terminated"] | own["truncated"]).astype(np.int64),
                "scores": own["score"],
                "labels": own["label"],
            }.items():
                hdf5.put(demo.id, name, values)
        for name, chosen in _masks(dataset):
            file.create_dataset(f"mask/{name}", data=[f"demo_{index}".encode() for index in np.flatnonzero(chosen)])
        write_about(file, dataset)


def _masks(dataset: Dataset) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield (name, (E,) Booleans) of the groups of episodes that are not empty."""
    labels = columns.labels(dataset.episodes)
    behavior = np.array(columns.vector(dataset.episodes, "behavior"))
    named = {f"behavior-{re.sub(r'[^-.A-Za-z0-9_]+', '-', name)}": behavior == name for name in np.unique(behavior)}
    for name, chosen in {"accepted": labels > 0, "rejected": labels < 0, **named}.items():
        if chosen.any():
            yield name, chosen


ROBOMIMIC = Writer(
    "the HDF5 file that robomimic's `SequenceDataset` reads",
    _write,
    lambda dataset: [
        "from robomimic.utils.dataset import SequenceDataset",
        f'dataset = SequenceDataset("{file_name(dataset)}.hdf5", obs_keys=("{STATE}",),',
        '    dataset_keys=("actions", "rewards", "dones", "labels"))  # filter_by_attribute="accepted": those episodes',
    ],
    "`next_obs` is what was observed after a step, at the end of an episode too; `dones` marks its last step, whether "
    "the task or the horizon ended it (`metadata/episodes/terminated` tells). `labels` is 1 for accept, -1 for reject "
    "and 0 where unlabelled; an absent score is NaN. Labels of episodes are also the masks `accepted` and `rejected`.",
    discrete=True,
)
