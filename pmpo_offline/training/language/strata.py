"""Which rows are learned from at which step: a pure function of seed and step, the same for any number of ranks.

An update's rows are dealt to its micro-batches so that each holds the same number of every class::

    one update, 2 ranks, 2 accumulated micro-batches         a accepted, r rejected, u unlabelled
    rank 0   a a r r r u   a a r r r u                       the shorter rows in the first micro-batches,
    rank 1   a a r r r u   a a r r r u                       alike in both ranks: nobody waits for the longest

Counts that never change make the mean over micro-batches of a class's mean the class's mean over the update; so does
every ratio of weighted sums. A class that would come out too small for the batch, or to nothing, is drawn more often
and weighs less (`weight`): the weighted shares are those of the dataset whatever the size of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.random_words import random_words

Indices = NDArray[np.int64]


class Strata:
    """Draws micro-batches whose strata never change in size; each stratum is passed through whole before it repeats.

    Args:
        pools: the entries of each stratum (rows, pairs or groups); an empty one is left out.
        batch: entries a micro-batch.
        lengths: of every entry that a pool may name, in tokens.
        seed: of all chance.
        accumulation: micro-batches an update and rank.
        ranks: processes that train together.
        restore: weigh the entries so that the strata have their shares in the data; without it they all weigh one, and
            every stratum has the same number of entries in a batch.
        window: updates whose entries are sorted by length together and then dealt in random order: above 1 there is
            less padding, and the lengths of one update resemble one another.

    Raises:
        UserError: nothing to draw from, or a batch with no room for every stratum.
    """

    def __init__(
        self,
        pools: Sequence[Indices],
        batch: int,
        lengths: Indices,
        seed: int,
        *,
        accumulation: int = 1,
        ranks: int = 1,
        restore: bool = True,
        window: int = 1,
    ) -> None:
        self._pools = [pool for pool in pools if len(pool)]
        if not self._pools:
            raise UserError("the labels leave this algorithm nothing to learn from: no such rows or pairs are labelled")
        if batch < len(self._pools):
            raise UserError(
                f"a micro-batch of {batch} has no room for all {len(self._pools)} classes of rows: raise the batch or "
                "lower the accumulation"
            )
        sizes = [len(pool) for pool in self._pools]
        self.counts = allocate(sizes, batch) if restore else [batch // len(sizes)] * len(sizes)
        self._lengths, self._seed, self._window = lengths, seed, window
        self._shape = (accumulation, ranks)
        self.accumulation = accumulation
        self.weight = np.ones(sum(self.counts), np.float32)
        """(batch,), of each place in a micro-batch; their mean is one."""
        if restore:
            share = np.array(sizes) / sum(sizes) * batch / np.array(self.counts)
            self.weight = np.repeat(share, self.counts).astype(np.float32)

    def __len__(self) -> int:
        """Return the updates after which every entry was drawn once, or more."""
        whole = self._shape[0] * self._shape[1]
        return max(-(-len(pool) // (count * whole)) for pool, count in zip(self._pools, self.counts, strict=True))

    def draw(self, step: int) -> Indices:
        """Return the entries of update `step`: (accumulation, ranks, batch), stratum after stratum in the last."""
        accumulation, ranks = self._shape
        start, place = step - step % self._window, step % self._window
        slot = _shuffled(self._window, self._seed, "slots", start)[place]
        drawn = []
        for number, (pool, count) in enumerate(zip(self._pools, self.counts, strict=True)):
            need = accumulation * ranks * count
            entries = pool[_passes(len(pool), start * need, self._window * need, self._seed, number)]
            entries = entries[np.argsort(self._lengths[entries], kind="stable")]
            dealt = entries.reshape(self._window, accumulation, count, ranks)[slot]
            drawn.append(dealt.swapaxes(1, 2))
        return np.concatenate(drawn, axis=-1)


def allocate(sizes: Sequence[int], batch: int) -> list[int]:
    """Return how many of a batch's places each stratum has: in proportion, to the nearest, but one at least.

    `batch` is at least the number of strata.
    """
    exact = np.array(sizes) / sum(sizes) * batch
    counts = np.maximum(np.floor(exact), 1)
    while counts.sum() < batch:
        counts[np.argmax(exact - counts)] += 1
    while counts.sum() > batch:  # small strata took a place that they have no share in
        counts[np.argmax(np.where(counts > 1, counts - exact, -np.inf))] -= 1
    return [int(count) for count in counts]


def _passes(size: int, start: int, count: int, seed: int, stratum: int) -> Indices:
    """Return numbers `start` to `start + count` of an endless row of passes through `size` entries, each shuffled."""
    first, last = start // size, (start + count - 1) // size
    row = np.concatenate([_shuffled(size, seed, "pass", stratum, number) for number in range(first, last + 1)])
    return row[start - first * size :][:count]


@lru_cache(maxsize=64)
def _shuffled(size: int, seed: int, *key: int | str) -> Indices:
    return np.argsort(random_words(size, seed, *key), kind="stable")
