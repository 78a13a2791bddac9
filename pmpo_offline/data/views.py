"""Views of a dataset's rows in the forms that other code expects: episodes as Minari has them, a torch dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset as TorchDataset

from pmpo_offline.data import columns
from pmpo_offline.data.dataset import Dataset
from pmpo_offline.runtime.errors import UserError


@dataclass(frozen=True, eq=False)
class Episode:
    """One episode of T steps; the arrays are views of the dataset where that is possible."""

    id: int
    """Its number in the dataset."""
    observations: NDArray[np.float32]
    """(T + 1, O): the last is what was observed after the last step."""
    actions: NDArray[Any]
    """(T, A)."""
    rewards: NDArray[np.float32]
    """(T,)."""
    terminations: NDArray[np.bool_]
    """(T,): True where the task ended the episode."""
    truncations: NDArray[np.bool_]
    """(T,): True where time ran out."""
    scores: NDArray[np.float32]
    """(T,), NaN where absent."""
    labels: columns.Labels
    """(T,): +1 accept, -1 reject, 0 unlabelled."""
    about: dict[str, Any]
    """Its row in the table of episodes: return, success, behavior, seed, label, …; None for what is unknown."""

    def __len__(self) -> int:
        """Return the number of steps T."""
        return len(self.rewards)


def episodes_of(dataset: Dataset) -> Iterator[Episode]:
    """Yield the episodes of a dataset of transitions in their order; `UserError` for responses."""
    if dataset.episodes is None:
        raise UserError(f"dataset {dataset.metadata.id} holds responses, which have no episodes: iterate over its rows")
    names = ("observation", "action", "reward", "terminated", "truncated", "score", "label")
    steps = columns.by_episode(dataset.table, dataset.episodes, *names)
    number, unknown = count(), dataset.unknown
    for batch in dataset.episodes.to_batches(max_chunksize=1024):
        for about in batch.to_pylist():
            del about["start"]
            about |= dict.fromkeys(unknown & about.keys())
            final, own = np.array(about.pop("final_observation"), np.float32), next(steps)
            yield Episode(
                id=next(number),
                observations=np.concatenate([own["observation"], final[None]]),
                actions=own["action"],
                rewards=own["reward"],
                terminations=own["terminated"],
                truncations=own["truncated"],
                scores=own["score"],
                labels=own["label"],
                about=about,
            )


class TorchRows(TorchDataset[dict[str, Any]]):
    """The rows of a dataset; an item is a dictionary, which `DataLoader` collates into tensors of a batch.

    Its keys are the columns of `data.schema`, and `next_observation` of transitions; a label is +1 accept, -1 reject or
    0 unlabelled, an absent score is NaN.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        names = dataset.table.column_names
        is_text = dataset.episodes is None
        self._columns: dict[str, Any] = {
            name: columns.values(dataset.table, name) if is_text else dataset.column(name) for name in names
        }

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._dataset)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """Return one row; `IndexError` outside the dataset."""
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        return self.__getitems__([row % len(self)])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Return several rows, gathered at once, which is what `DataLoader` asks for."""
        index = np.asarray(rows, np.int64)
        if self._dataset.episodes is None:
            found = {name: values[index] for name, values in self._columns.items()}
            batch = {name: each if each.dtype == object else torch.from_numpy(each) for name, each in found.items()}
        else:
            batch = {name: column[torch.from_numpy(index)] for name, column in self._columns.items()}
            batch["next_observation"] = torch.from_numpy(self._dataset.next_observation(index))
        return [{name: values[place] for name, values in batch.items()} for place in range(len(index))]
