"""What a trainer gathers from: a dataset as flat tensors on a device, and row indices that any run can draw again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from pmpo_offline.data import columns
from pmpo_offline.data.dataset import Dataset
from pmpo_offline.data.labelling import states_and_width
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.random_words import random_words

_BLOCK = 64  # steps drawn at once: the cost of starting a random stream and of the copy to the device is paid once


@dataclass(frozen=True, eq=False)
class Candidates:
    """K scored actions at each of S states."""

    state_row: Tensor
    """(S,) int64: the row of transitions that holds the state."""
    action: Tensor
    """(S, K, A) float32."""
    score: Tensor
    """(S, K) float32, NaN where absent."""
    label: Tensor
    """(S, K) float32: +1 accept, −1 reject, 0 unlabelled."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Transitions as dense tensors; row r's next observation is `states[next_row[r]]`.

    `states` holds the N observations and after them the E final observations of the episodes, so that no observation
    is stored twice:  states │ o₀ … o_{N−1} │ final₀ … final_{E−1} │
    """

    states: Tensor
    """(N + E, O) float32."""
    next_row: Tensor
    """(N,) int64, an index into `states`."""
    action: Tensor
    """(N, A) float32."""
    reward: Tensor
    """(N,) float32."""
    terminated: Tensor
    """(N,) bool."""
    truncated: Tensor
    """(N,) bool."""
    episode: Tensor
    """(N,) int64."""
    score: Tensor
    """(N,) float32, NaN where absent."""
    label: Tensor
    """(N,) float32: +1 accept, −1 reject, 0 unlabelled."""
    candidates: Candidates | None = None

    @classmethod
    def of(cls, dataset: Dataset, device: torch.device | str = "cpu") -> Rows:
        """Copy a dataset of transitions onto `device`."""
        table, episodes = dataset.table, dataset.episodes
        if episodes is None:
            raise UserError(
                f"dataset {dataset.metadata.id} holds responses, not transitions: train a language model on it"
            )

        def tensor(values: np.ndarray, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=device)

        final = columns.matrix(episodes, "final_observation")
        following = np.arange(1, len(dataset) + 1)
        following[columns.vector(episodes, "start") + columns.vector(episodes, "length") - 1] = len(
            dataset
        ) + np.arange(len(final))
        return cls(
            states=tensor(np.concatenate([columns.matrix(table, "observation"), final])),
            next_row=tensor(following, torch.int64),
            action=tensor(columns.matrix(table, "action")),
            reward=tensor(columns.vector(table, "reward")),
            terminated=tensor(columns.vector(table, "terminated"), torch.bool),
            truncated=tensor(columns.vector(table, "truncated"), torch.bool),
            episode=tensor(columns.vector(table, "episode"), torch.int64),
            score=tensor(columns.vector(table, "score")),
            label=tensor(columns.labels(table)),
            candidates=_candidates(dataset, device),
        )

    def __len__(self) -> int:
        """Return the number of transitions N."""
        return len(self.action)

    @property
    def observation(self) -> Tensor:
        """(N, O) float32, a view of `states`."""
        return self.states[: len(self)]


def _candidates(dataset: Dataset, device: torch.device | str) -> Candidates | None:
    table = dataset.candidates
    if table is None:
        return None
    shape = states_and_width(table)
    return Candidates(
        state_row=torch.tensor(columns.vector(table, "row")[:: shape[1]], device=device),
        action=torch.tensor(columns.matrix(table, "action").reshape(*shape, -1), device=device),
        score=torch.tensor(columns.vector(table, "score").reshape(shape), device=device),
        label=torch.tensor(columns.labels(table).reshape(shape), dtype=torch.float32, device=device),
    )


def indices(seeds: Sequence[int], step: int, batch: int, population: int, device: torch.device | str = "cpu") -> Tensor:
    """Return (runs, batch) int64 indices below `population`, uniform with replacement. Read-only: it is a cached block.

    A run's indices are a pure function of its seed and the step, whatever runs beside it and whichever device: stacked
    runs see what they would see alone, and a resumed run what an uninterrupted one would.
    """
    if population < 1:
        raise UserError("there are no rows to draw from: the labels leave this algorithm nothing to learn from")
    block, offset = divmod(step, _BLOCK)
    return _block(tuple(seeds), block, batch, population, torch.device(device))[offset]


@lru_cache(maxsize=4)
def _block(seeds: tuple[int, ...], block: int, batch: int, population: int, device: torch.device) -> Tensor:
    """Return (_BLOCK, runs, batch). Taking the remainder of 64-bit words is biased by less than population / 2⁶⁴."""
    drawn = [random_words(_BLOCK * batch, seed, "indices", block) % np.uint64(population) for seed in seeds]
    stacked = np.stack(drawn).astype(np.int64).reshape(len(seeds), _BLOCK, batch)
    return torch.from_numpy(np.ascontiguousarray(stacked.swapaxes(0, 1))).to(device)


def pairs(candidates: Candidates) -> tuple[Tensor, Tensor, Tensor]:
    """Return (state, chosen, rejected), each (P,) int64: every pair of an accept and a reject of one state, once.

    The pair's actions are `candidates.action[state, chosen]` and `candidates.action[state, rejected]`.
    """
    accepts, rejects = candidates.label > 0, candidates.label < 0
    state, chosen, rejected = (accepts[:, :, None] & rejects[:, None, :]).nonzero().unbind(1)
    return state, chosen, rejected
