"""Which responses a step is trained on: the entries of an algorithm, and their division into micro-batches.

The draw is a pure function of seed and step, the same for any number of ranks. An update's rows are dealt to its
micro-batches so that each holds the same number of every class::

    one update, 2 ranks, 2 accumulated micro-batches         a accepted, r rejected, u unlabelled
    rank 0   a a r r r u   a a r r r u                       the shorter rows in the first micro-batches,
    rank 1   a a r r r u   a a r r r u                       equal lengths in both ranks

Constant counts make the mean over micro-batches of a class's mean the class's mean over the update, and likewise every
ratio of weighted sums. A class whose share of a batch would be too small, or zero, is drawn more often and weighs less
(`weight`): the weighted shares are those of the dataset whatever the size of the batch. A batch smaller than the number
of classes is enlarged to one entry of each.

An epoch is as many updates as it takes to draw as many entries as there are. A class that has fewer places than its
share goes on with its pass in the next epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.objectives import OBJECTIVES
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.hashing import random_words
from pmpo_offline.training.config import PARTS_BY_LABEL, check_inputs
from pmpo_offline.training.language.batches import BATCHES, Batch, ResponseBatch, Scorer
from pmpo_offline.training.language.responses import Indices, TokenizedResponses


@dataclass(frozen=True)
class Division:
    """How an update's entries are divided."""

    batch: int
    """Entries of a micro-batch."""
    accumulation: int = 1
    """Micro-batches per update and rank."""
    ranks: int = 1
    """Processes that train together."""
    window: int = 1
    """Updates whose entries are sorted by length together and then dealt in random order: above 1 there is less
    padding, and the lengths within an update are similar."""


class StratifiedSampler:
    """Draws micro-batches with constant class counts; each stratum is passed through whole before it repeats.

    Args:
        pools: the entries of each stratum (rows, pairs or groups); empty ones are left out.
        lengths: tokens of every entry that a pool may name.
        division: of each update.
        seed: of all randomness.
        restore: weigh the entries so that the strata have their shares of the data; otherwise all weigh one, and every
            stratum has the same number of entries in a batch.

    Raises:
        UserError: nothing to draw from.
    """

    def __init__(
        self, pools: Sequence[Indices], lengths: Indices, division: Division, seed: int, *, restore: bool = True
    ) -> None:
        self._pools = [pool for pool in pools if len(pool)]
        if not self._pools:
            raise UserError("the labels leave this algorithm nothing to learn from: no such rows or pairs are labelled")
        sizes, batch = [len(pool) for pool in self._pools], max(division.batch, len(self._pools))
        self.counts = allocate(sizes, batch) if restore else [batch // len(sizes)] * len(sizes)
        self._lengths, self._seed, self.division = lengths, seed, division
        self.weight = np.ones(sum(self.counts), np.float32)
        """(batch,), of each place in a micro-batch; their mean is one."""
        if restore:
            share = np.array(sizes) / sum(sizes) * batch / np.array(self.counts)
            self.weight = np.repeat(share, self.counts).astype(np.float32)

    def __len__(self) -> int:
        """Return the number of updates in an epoch."""
        drawn = self.division.batch * self.division.accumulation * self.division.ranks
        return -(-sum(map(len, self._pools)) // drawn)

    @property
    def first_pass(self) -> int:
        """The number of updates after which every entry was drawn at least once."""
        whole = self.division.accumulation * self.division.ranks
        return max(-(-len(pool) // (count * whole)) for pool, count in zip(self._pools, self.counts, strict=True))

    def draw(self, step: int) -> Indices:
        """Return the entries of update `step`: (accumulation, ranks, batch), stratum after stratum in the last."""
        accumulation, ranks, window = self.division.accumulation, self.division.ranks, self.division.window
        start, place = step - step % window, step % window
        slot = _shuffled(window, self._seed, "slots", start)[place]
        drawn = []
        for number, (pool, count) in enumerate(zip(self._pools, self.counts, strict=True)):
            need = accumulation * ranks * count
            entries = pool[_passes(len(pool), start * need, window * need, self._seed, number)]
            entries = entries[np.argsort(self._lengths[entries], kind="stable")]
            dealt = entries.reshape(window, accumulation, count, ranks)[slot]
            drawn.append(dealt.swapaxes(1, 2))
        return np.concatenate(drawn, axis=-1)


def allocate(sizes: Sequence[int], batch: int) -> list[int]:
    """Return how many places of a batch each stratum gets: in proportion, rounded, but at least one.

    `batch` is at least the number of strata.
    """
    exact = np.array(sizes) / sum(sizes) * batch
    counts = np.maximum(np.floor(exact), 1)
    while counts.sum() < batch:
        counts[np.argmax(exact - counts)] += 1
    while counts.sum() > batch:  # small strata took a place that exceeds their share
        counts[np.argmax(np.where(counts > 1, counts - exact, -np.inf))] -= 1
    return [int(count) for count in counts]


def _passes(size: int, start: int, count: int, seed: int, stratum: int) -> Indices:
    """Return numbers `start` to `start + count` of an infinite sequence of shuffled passes through `size` entries."""
    first, last = start // size, (start + count - 1) // size
    row = np.concatenate([_shuffled(size, seed, "pass", stratum, number) for number in range(first, last + 1)])
    return row[start - first * size :][:count]


@lru_cache(maxsize=64)
def _shuffled(size: int, seed: int, *key: int | str) -> Indices:
    return np.argsort(random_words(size, seed, *key), kind="stable")


class Entries:
    """The entries that an algorithm learns from: rows, pairs or groups of one prompt.

    Args:
        responses: their source.
        algorithm: whose `rows` they are.
        settings: the objective's, complete.

    Raises:
        UserError: the labels and scores give no such entries, or these lack an input of the objective.
    """

    def __init__(
        self, responses: TokenizedResponses, algorithm: AlgorithmDeclaration, settings: Mapping[str, Any]
    ) -> None:
        self.responses, self._kind = responses, BATCHES.get(algorithm.rows, ResponseBatch)
        self._restore = algorithm.rows != "balanced"
        name, kind = responses.name, algorithm.name
        check_inputs(algorithm, self._kind)
        if algorithm.rows == "pairs" and not len(responses.pairs):
            raise UserError(
                f"{kind} learns from pairs, and no prompt of {name} has an accepted and a rejected response: take "
                "an algorithm that learns from single labels (pmpo), or other labels"
            )
        if algorithm.rows == "candidates" and not len(responses.groups):
            raise UserError(f"{kind} compares scored responses, and no prompt of {name} has two or more of them")
        if self._kind is ResponseBatch:
            self._rows = np.arange(len(responses))[:, None]
            self._pools = _strata(responses, algorithm, settings)
        else:
            self._rows = responses.pairs if algorithm.rows == "pairs" else responses.groups
            self._pools = [np.arange(len(self._rows))]

    def __len__(self) -> int:
        """Return the number of entries to draw from."""
        return sum(map(len, self._pools))

    def __getitem__(self, entry: int) -> int:
        """Return the entry itself: its rows are read when its micro-batch is."""
        return entry

    def sampler(self, division: Division, seed: int) -> StratifiedSampler:
        """Return the sampler of these entries.

        The batch of the division counts rows of the dataset: of pairs of which both responses are entries, two each.
        """
        if self.responses.paired and self._kind is ResponseBatch and len(self) > len(self.responses) // 2:
            division = replace(division, batch=2 * division.batch)
        lengths = np.where(self._rows >= 0, self.responses.lengths[self._rows], 0).max(1)
        return StratifiedSampler(self._pools, lengths, division, seed, restore=self._restore)

    def whole(self) -> tuple[Indices, NDArray[np.float32]]:
        """Return all entries, (n,), and their weights, whose mean is one: the strata's shares are as in training."""
        pools = [pool for pool in self._pools if len(pool)]
        share = [1.0 if self._restore else len(self) / len(pools) / len(pool) for pool in pools]
        return np.concatenate(pools), np.repeat(np.array(share, np.float32), [len(pool) for pool in pools])

    @property
    def every_row(self) -> Indices:
        """The rows of all entries, each once."""
        return self.rows(np.concatenate(self._pools))

    def rows(self, entries: Indices) -> Indices:
        """Return the rows of entries, each once."""
        found = self._rows[entries]
        return np.unique(found[found >= 0])

    def batch(self, index: Indices, weight: Tensor, scorer: Scorer) -> Batch:
        """Return a micro-batch of the entries of this index."""
        return self._kind(self.responses, index, weight, scorer)


def _strata(
    responses: TokenizedResponses, algorithm: AlgorithmDeclaration, settings: Mapping[str, Any]
) -> list[Indices]:
    """Return the strata of single rows: by label, if the algorithm reads labels."""
    objective = OBJECTIVES[algorithm.objective]
    usable = np.ones(len(responses), bool)
    if "advantage" in objective.needs:
        usable = ~np.isnan(responses.advantage)
        if not usable.any():
            raise UserError(
                f"{algorithm.name} weighs responses by how much better they scored than others to their prompt, and no "
                f"prompt of {responses.name} has two scored ones"
            )
    if "label" in objective.needs and not responses.label[usable].any():
        raise UserError(f"{algorithm.name} learns from labelled responses and {responses.name} has none")
    if algorithm.rows == "top":
        return [responses.top(algorithm.top)]
    if algorithm.rows in PARTS_BY_LABEL:
        parts = PARTS_BY_LABEL[algorithm.rows]
    elif "label" not in objective.needs:
        parts = [[-1, 0, 1]]
    else:
        # Rows without a label matter only to a divergence over all rows, and to an objective that labels them itself.
        over_all = "divergence" in objective.needs and settings["over"] == "all"
        parts = [[1], [-1], [0]] if over_all or "unlabelled rows" in objective.exempt else [[1], [-1]]
    return [np.flatnonzero(usable & np.isin(responses.label, part)) for part in parts]


class MicroBatchLoader(DataLoader[int]):
    """Yields the micro-batches of one rank, each a dictionary as transformers' loop expects them."""

    def __init__(self, entries: Entries, sampler: StratifiedSampler, rank: int) -> None:
        weight = torch.from_numpy(sampler.weight)

        def collate(index: list[int]) -> dict[str, Any]:
            return {"index": torch.tensor(index), "weight": weight, "entries": entries}

        # Not sharded by accelerate: a micro-batch knows its rank, so that each class is dealt evenly.
        super().__init__(entries, batch_sampler=_MicroBatches(sampler, rank), collate_fn=collate)  # type: ignore[arg-type]

    def set_epoch(self, epoch: int) -> None:
        """Go to the updates of an epoch, counted from 0."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


class WholeLoader(DataLoader[int]):
    """Yields all entries at once, on every rank: an evaluation scores them in parts (`batches.Parts`)."""

    def __init__(self, entries: Entries) -> None:
        index, weight = (torch.from_numpy(values) for values in entries.whole())
        whole = {"index": index, "weight": weight, "entries": entries}
        every: Any = [range(len(entries))]
        super().__init__(entries, batch_sampler=every, collate_fn=lambda _: whole)  # type: ignore[arg-type]


class _MicroBatches(Sampler[list[int]]):
    """The micro-batches of one rank and epoch; a resumed loop skips those it has already used."""

    def __init__(self, sampler: StratifiedSampler, rank: int) -> None:
        self._sampler, self._rank, self._epoch = sampler, rank, 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._sampler) * self._sampler.division.accumulation

    def __iter__(self) -> Iterator[list[int]]:
        updates = len(self._sampler)
        for step in range(self._epoch * updates, (self._epoch + 1) * updates):
            for micro in self._sampler.draw(step):
                yield micro[self._rank].tolist()
