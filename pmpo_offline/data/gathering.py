"""Transitions as tensors: which rows a minibatch draws, and columns to gather them from, dense or in mapped files."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from pmpo_offline.data import columns
from pmpo_offline.data.mapping import fit, places, release_pages, taken
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.hashing import random_words

if TYPE_CHECKING:
    from pmpo_offline.data.dataset import Dataset

_BLOCK = 64
"""Steps drawn at once, to pay for the start of a random stream and the copy to the device once."""
PACKED_BYTES = 256 * 2**20
"""Observations and actions of at most so many bytes are copied to memory before training; larger ones are gathered from
the mapped files. The numbers are the same. On a GPU all are copied, to its memory."""
_AT_ONCE = 512 * 2**20
"""Bytes of a column whose moments are those of one float32 sum; of larger ones they are summed by blocks in float64."""
_CHECKED = 512
"""Rows gathered from mapped files before their resident pages are counted again."""
_STORED = ("action", "reward", "terminated", "truncated", "score", "label")
"""Columns that `Rows` holds as they are stored."""
_WIDE = 16
"""Bytes of a row from which on large columns are read by position; of narrower ones the pages may stay resident."""
_APART = 8 * 2**10
"""Bytes from row to row, on average, up to which rows of large columns are gathered through the map in the order of
their addresses: the system maps more than that at a touch, so it is faster than reading each row by position."""
_AHEAD = 64 * 2**20
"""Bytes of observations or actions that are gathered ahead at most."""


class Column:
    """A column of numbers in one or more chunks: rows are gathered without joining or copying the chunks.

    Args:
        chunks: (n, width) or (n,) each, on one device, in the order of their rows; those of several are contiguous.
        mapped: whether they lie in a mapped file.
    """

    def __init__(self, chunks: Sequence[Tensor], *, mapped: bool = False) -> None:
        self.chunks = [chunk for chunk in chunks if len(chunk)] or list(chunks)
        self._starts = np.cumsum([0, *map(len, self.chunks)])
        self._mapped, self._gathered = mapped, 0
        self._stored = math.prod(self.chunks[0].shape[1:])  # numbers a row, in the chunks
        self._bytes = self._stored * self.chunks[0].itemsize
        large = mapped and self._bytes >= _WIDE and not fit()
        self._places = places([chunk.numpy() for chunk in self.chunks]) if large else None
        self._dense = len(self) * self._bytes // _APART
        if len(self.chunks) > 1 and self._places is None:
            self._span, self._offset = _span(self.chunks, self._starts)

    @classmethod
    def of(cls, table: pa.Table, name: str) -> Column:
        """Return a column of a table, a view where it is no Boolean one; `label` is int8 (+1, −1, 0 unlabelled)."""
        if pa.types.is_boolean(table.schema.field(name).type):
            return cls([torch.from_numpy(columns.values(table, name))])
        chunks = [columns.values(pa.table([chunk], [name]), name) for chunk in table.column(name).chunks]
        with warnings.catch_warnings():  # of arrays that must not be written to: they are not
            warnings.simplefilter("ignore", UserWarning)
            return cls([torch.from_numpy(chunk) for chunk in chunks], mapped=True)

    def __len__(self) -> int:
        """Return the number of rows N."""
        return int(self._starts[-1])

    @property
    def width(self) -> int:
        """Numbers a row, 1 of a vector."""
        return self._stored

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return sum(chunk.nbytes for chunk in self.chunks)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Return a copy of these rows (…,) int64, as (…, width) or (…,); `IndexError` for rows outside 0 … N − 1."""
        if self._places is not None:
            index = self._checked(rows)
            return self._read_rows(index, 1) if index.size < self._dense else self._swept(index)
        if len(self.chunks) == 1:
            chunk = self.chunks[0]  # faster than chunk[rows], and no row is counted from the end
            found = chunk.index_select(0, rows.reshape(-1)).reshape(*rows.shape, *chunk.shape[1:])
        else:
            index = self._checked(rows)
            found = torch.from_numpy(self._span[index * self._stored + self._offset[self._chunk(index)]])
        if self._mapped:
            self._gathered += rows.numel()
            if self._gathered >= _CHECKED:
                self._gathered = 0
                release_pages()
        return found

    def pairs(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return copies of these rows (n,) and of the ones after them, (n, …) each; after the last row comes itself."""
        after = (rows + 1).clamp(max=len(self) - 1)
        if self._places is None or not 0 < 2 * len(rows) < self._dense:
            first, second = self[torch.stack([rows, after])]
            return first, second
        index = self._checked(rows)
        first, second = self._read_rows(index, 2).unbind(1)
        cut = self._starts[self._chunk(index) + 1] == index + 1  # what follows in the file is no row of this column
        if cut.any():
            second[cut] = self[after[cut]]
        return first.contiguous(), second.contiguous()

    def _checked(self, rows: Tensor) -> NDArray[np.int64]:
        index: NDArray[np.int64] = rows.numpy()
        if index.size and int(index.view(np.uint64).max()) >= len(self):  # negative ones are the largest
            raise IndexError(f"rows {index.min()} to {index.max()} of {len(self)}")
        return index

    def _chunk(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self._starts, index, side="right") - 1

    def _read_rows(self, index: NDArray[np.int64], count: int) -> Tensor:
        """Return `count` neighbouring rows from each index on, read by position; (…, width), or (…, count, width)."""
        assert self._places is not None
        chunk, (file, first) = self._chunk(index).ravel(), self._places
        offset = (index.ravel() - self._starts[chunk]) * self._bytes + first[chunk]
        content = b"".join(map(os.pread, file[chunk].tolist(), repeat(count * self._bytes), offset.tolist()))
        found = torch.from_numpy(np.frombuffer(bytearray(content), self.chunks[0].numpy().dtype))
        return found.reshape(*index.shape, *([count] if count > 1 else []), *self.chunks[0].shape[1:])

    def _swept(self, index: NDArray[np.int64]) -> Tensor:
        """Return rows (…, width), gathered in the order of their addresses."""
        order, shape = index.argsort(axis=None), self.chunks[0].shape[1:]
        ascending, found = index.ravel()[order], np.empty((index.size, *shape), self.chunks[0].numpy().dtype)
        cuts = np.searchsorted(ascending, self._starts)
        for chunk, start, first, end in zip(self.chunks, self._starts, cuts, cuts[1:], strict=False):
            found[order[first:end]] = taken(chunk.numpy(), ascending[first:end] - start)
        return torch.from_numpy(found).reshape(*index.shape, *shape)

    @property
    def ahead(self) -> int:
        """Number of rows of many minibatches that are gathered faster in one call; 0 where it makes no difference."""
        return self._dense if self._places is not None and self._dense * self._bytes <= _AHEAD else 0

    def packed(self, device: torch.device | str = "cpu") -> Tensor:
        """Return a copy of all rows in one tensor on `device`."""
        whole = torch.empty((len(self), *self.chunks[0].shape[1:]), dtype=self.chunks[0].dtype, device=device)
        start = 0
        for block in self.blocks():
            whole[start : (start := start + len(block))] = block
        return whole

    def blocks(self) -> Iterator[Tensor]:
        """Yield all rows in order, some at a time; views where they are in one chunk."""
        rows = max(1, columns.BLOCK // 16)  # what is computed of them takes several times their bytes
        for start in range(0, len(self), rows):
            yield self._rows(start, min(start + rows, len(self)))
            if self._mapped:
                release_pages()

    def _rows(self, start: int, end: int) -> Tensor:
        first, last = np.searchsorted(self._starts, [start, end - 1], side="right") - 1
        parts = [
            self.chunks[at][max(0, start - self._starts[at]) : end - self._starts[at]] for at in range(first, last + 1)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return the mean and the standard deviation of the rows, (width,) float32 each; of one row it is zero."""
        correction = min(1, len(self) - 1)
        if self.nbytes <= _AT_ONCE:
            whole = self._rows(0, len(self))
            return whole.mean(0), whole.std(0, correction=correction)
        mean = torch.stack([block.sum(0, dtype=torch.float64) for block in self.blocks()]).sum(0) / len(self)
        squares = torch.stack([(block - mean).square().sum(0) for block in self.blocks()]).sum(0)
        return mean.float(), (squares / (len(self) - correction)).sqrt().float()

    def largest(self) -> Tensor:
        """Return the largest magnitude, a scalar."""
        return torch.stack([block.abs().max() for block in self.blocks()]).max()


class OneHot(Column):
    """A column of discrete actions, whose rows are gathered as float32 vectors of which one number is 1.

    Args:
        stored: (n, 1) integers from 0.
        choices: number of actions.
    """

    def __init__(self, stored: Column, choices: int) -> None:
        super().__init__(stored.chunks, mapped=stored._mapped)
        self._choices = choices

    @property
    def width(self) -> int:
        """Number of actions."""
        return self._choices

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Return these rows (…,) int64 as (…, width); `IndexError` for rows outside 0 … N − 1."""
        return one_hot(super().__getitem__(rows).squeeze(-1).long(), self._choices).float()

    def largest(self) -> Tensor:
        """Return the largest magnitude, which is 1."""
        return torch.ones((), device=self.chunks[0].device)


def _span(chunks: Sequence[Tensor], starts: Any) -> tuple[Any, Any]:
    """Return (span, offset) such that `span[row * width + offset[chunk]]` is a row of that chunk, whatever the chunk.

    The span is a view of the memory from the chunk of the lowest address to the end of the last one, in which a row
    may begin at every number; between the chunks lies memory that is not theirs, which no row leads to. So one call
    gathers from all chunks: a loop over parts would take several times as long as the copies it makes.
    """
    arrays = [chunk.numpy() for chunk in chunks]
    size, shape = arrays[0].itemsize, arrays[0].shape[1:]
    address = np.array([array.ctypes.data for array in arrays])
    distance, first = address - address.min(), arrays[int(address.argmin())]
    if (distance % size).any() or not all(array.flags.c_contiguous for array in arrays):
        raise ValueError("chunks are not aligned to their numbers")
    width = math.prod(shape)
    numbers = max(int(at) // size + array.size for at, array in zip(distance, arrays, strict=True))
    span = as_strided(first, (numbers - width + 1, *shape), (size, *first.strides[1:]))
    return span, distance // size - starts[:-1] * width


@dataclass(frozen=True, eq=False)
class Steps:
    """The columns of transitions that minibatches are made of."""

    observation: Column
    """N rows of O numbers."""
    action: Column
    """N rows of A numbers; of A discrete actions one-hot."""
    score: Column
    """N numbers, NaN where absent."""
    label: Tensor
    """(N,) int8: +1 accept, −1 reject, 0 unlabelled."""
    dataset: Dataset
    candidates: Candidates | None = None

    @classmethod
    def of(cls, dataset: Dataset, device: torch.device | str = "cpu") -> Steps:
        """Return the columns of a dataset for training on `device`, packed or in place (`PACKED_BYTES`).

        Raises `UserError` for responses, and `PmpoOfflineError` for damaged transitions.
        """
        found = {name: dataset.column(name) for name in ("observation", "action", "score")}
        size = found["observation"].nbytes + found["action"].nbytes
        if size <= PACKED_BYTES or torch.device(device).type != "cpu":
            found = {name: Column([column.packed(device)]) for name, column in found.items()}
        if choices := dataset.metadata.actions:
            found["action"] = OneHot(found["action"], choices)
        return cls(
            **found,
            label=dataset.column("label").packed(device),
            dataset=dataset,
            candidates=None if dataset.candidates is None else Candidates.of(dataset.candidates, device),
        )

    def __len__(self) -> int:
        """Return the number of transitions N."""
        return len(self.action)

    @property
    def episode(self) -> Tensor:
        """(N,) int64."""
        return self.dataset.column("episode").packed(self.label.device).long()


def indices(seeds: Sequence[int], step: int, batch: int, population: int, device: torch.device | str = "cpu") -> Tensor:
    """Return (runs, batch) int64 indices below `population`, uniform with replacement: a cached block, do not write.

    A run's indices are a pure function of its seed and the step: they do not depend on the other runs, on the device,
    or on whether the training was interrupted.
    """
    if population < 1:
        raise UserError("there are no rows to draw from: the labels leave this algorithm nothing to learn from")
    block, offset = divmod(step, _BLOCK)
    return _block(tuple(seeds), block, batch, population, torch.device(device))[offset]


@lru_cache(maxsize=4)
def _block(seeds: tuple[int, ...], block: int, batch: int, population: int, device: torch.device) -> Tensor:
    """Return (_BLOCK, runs, batch); the remainder of 64-bit words is biased by less than population / 2⁶⁴."""
    drawn = [random_words(_BLOCK * batch, seed, "indices", block) % np.uint64(population) for seed in seeds]
    stacked = np.stack(drawn).astype(np.int64).reshape(len(seeds), _BLOCK, batch)
    return torch.from_numpy(np.ascontiguousarray(stacked.swapaxes(0, 1))).to(device)


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

    @classmethod
    def of(cls, table: pa.Table, device: torch.device | str) -> Candidates:
        """Copy a table of candidates onto `device`."""
        shape = columns.states_and_width(table)
        return cls(
            state_row=torch.tensor(columns.vector(table, "row")[:: shape[1]], device=device),
            action=torch.tensor(columns.matrix(table, "action").reshape(*shape, -1), device=device),
            score=torch.tensor(columns.vector(table, "score").reshape(shape), device=device),
            label=torch.tensor(columns.labels(table).reshape(shape), dtype=torch.float32, device=device),
        )


@dataclass(frozen=True, eq=False)
class Rows:
    """Transitions as dense tensors; row r's next observation is `states[next_row[r]]`.

    `states` holds the N observations and after them the E final observations of the episodes, each only once:

        states │ o₀ … o_{N−1} │ final₀ … final_{E−1} │
    """

    states: Tensor
    """(N + E, O) float32."""
    next_row: Tensor
    """(N,) int64, an index into `states`."""
    action: Tensor
    """(N, A) float32; of A discrete actions one-hot."""
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
        """Copy a dataset of transitions onto `device`; `UserError` for responses."""
        tensors = {name: dataset.column(name).packed(device) for name in _STORED}
        observation = dataset.column("observation").packed(device)
        last, final = dataset._ends["last"], dataset._ends["final_observation"]
        following = np.arange(1, len(dataset) + 1)
        following[last] = len(dataset) + np.arange(len(final))
        if choices := dataset.metadata.actions:
            tensors["action"] = one_hot(tensors["action"].squeeze(1).long(), choices).float()
        return cls(
            states=torch.cat([observation, torch.tensor(final, device=device)]),
            next_row=torch.tensor(following, device=device),
            episode=dataset.column("episode").packed(device).long(),
            label=tensors.pop("label").float(),
            candidates=None if dataset.candidates is None else Candidates.of(dataset.candidates, device),
            **tensors,
        )

    def __len__(self) -> int:
        """Return the number of transitions N."""
        return len(self.action)

    @property
    def observation(self) -> Tensor:
        """(N, O) float32, a view of `states`."""
        return self.states[: len(self)]


def pairs(candidates: Candidates) -> tuple[Tensor, Tensor, Tensor]:
    """Return (state, chosen, rejected), each (P,) int64: every pair of an accept and a reject of one state.

    The pair's actions are `candidates.action[state, chosen]` and `candidates.action[state, rejected]`.
    """
    accepts, rejects = candidates.label > 0, candidates.label < 0
    state, chosen, rejected = (accepts[:, :, None] & rejects[:, None, :]).nonzero().unbind(1)
    return state, chosen, rejected
