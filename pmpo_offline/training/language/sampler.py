"""What an algorithm draws from responses, micro-batch by micro-batch, and how the Trainer's loop gets at it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from pmpo_offline.declarations import OBJECTIVES
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.training.language.batches import BATCHES, Batch, Measures, ResponseBatch
from pmpo_offline.training.language.reference import Reference
from pmpo_offline.training.language.responses import Responses
from pmpo_offline.training.language.strata import Indices, Strata


class Feed:
    """The entries that an algorithm learns from: rows, pairs or groups of one prompt.

    Args:
        responses: where they are from.
        algorithm: says which (`rows`).
        settings: the objective's, complete.

    Raises:
        UserError: these labels and scores have nothing of the kind.
    """

    def __init__(self, responses: Responses, algorithm: AlgorithmDeclaration, settings: Mapping[str, Any]) -> None:
        self.responses, self._kind = responses, BATCHES.get(algorithm.rows, ResponseBatch)
        self._restore = algorithm.rows != "balanced"
        name, kind = responses.name, algorithm.name
        self._lengths = responses.lengths
        self._behind: Indices | None = None  # the rows of each entry, where that is more than one
        if algorithm.rows == "pairs":
            if not len(responses.pairs):
                raise UserError(
                    f"{kind} learns from pairs, and no prompt of {name} has an accepted and a rejected response: take "
                    "an algorithm that learns from single labels (pmpo), or other labels"
                )
            self._behind = responses.pairs
        elif algorithm.rows == "candidates":
            if not len(responses.groups):
                raise UserError(f"{kind} compares scored responses, and no prompt of {name} has two or more of them")
            self._behind = responses.groups
        else:
            self._pools = _rows(responses, algorithm, settings)
        if self._behind is not None:
            self._pools = [np.arange(len(self._behind))]
            self._lengths = np.where(self._behind >= 0, responses.lengths[self._behind], 0).max(1)

    def __len__(self) -> int:
        """Return how many entries there are to draw from."""
        return sum(map(len, self._pools))

    def __getitem__(self, entry: int) -> int:
        """Return the entry itself: what it stands for is read when its micro-batch is."""
        return entry

    def strata(self, batch: int, seed: int, *, accumulation: int, ranks: int, window: int) -> Strata:
        """Return what draws them; the arguments are those of `Strata`."""
        return Strata(
            self._pools,
            batch,
            self._lengths,
            seed,
            accumulation=accumulation,
            ranks=ranks,
            restore=self._restore,
            window=window,
        )

    @property
    def every_row(self) -> Indices:
        """The rows behind all entries, each once."""
        return self.rows(np.concatenate(self._pools))

    def rows(self, entries: Indices) -> Indices:
        """Return the rows behind entries, each once."""
        found = entries if self._behind is None else self._behind[entries]
        return np.unique(found[found >= 0])

    def batch(
        self, entries: Indices, weight: Tensor, model: Any, reference: Reference | None, measures: Measures
    ) -> Batch:
        """Return a micro-batch of these entries."""
        return self._kind(self.responses, entries, weight, model, reference, measures)


def _rows(responses: Responses, algorithm: AlgorithmDeclaration, settings: Mapping[str, Any]) -> list[Indices]:
    """Return the strata of single rows: by label, where the objective has labels."""
    asked = set(OBJECTIVES[algorithm.objective].inputs.values())
    usable = np.ones(len(responses), bool)
    if "advantage" in asked:
        usable = ~np.isnan(responses.advantage)
        if not usable.any():
            raise UserError(
                f"{algorithm.name} weighs responses by how much better they scored than others to their prompt, and no "
                f"prompt of {responses.name} has two scored ones"
            )
    accepted, rejected, unlabelled = (
        np.flatnonzero(usable & (np.sign(responses.label) == sign)) for sign in (1, -1, 0)
    )
    if "label" in asked and not len(accepted) + len(rejected):
        raise UserError(f"{algorithm.name} learns from labelled responses and {responses.name} has none")
    if algorithm.rows == "top":
        return [responses.top(algorithm.top)]
    if algorithm.rows == "accepted":
        return [accepted]
    if algorithm.rows == "balanced":
        return [accepted, rejected]
    if "label" not in asked:
        return [np.flatnonzero(usable)]
    # Rows without a label serve nothing but a divergence over all rows.
    return [accepted, rejected, *([unlabelled] if "divergence" in asked and settings["over"] == "all" else [])]


class Loader(DataLoader[int]):
    """Gives one rank its micro-batches, each a dictionary as transformers' loop wants them."""

    def __init__(self, feed: Feed, strata: Strata, rank: int) -> None:
        weight = torch.from_numpy(strata.weight)

        def collate(entries: list[int]) -> dict[str, Any]:
            return {"entries": torch.tensor(entries), "weight": weight, "feed": feed}

        # Not sharded by accelerate: a micro-batch knows its rank, so that each class is dealt out evenly.
        super().__init__(feed, batch_sampler=_MicroBatches(strata, rank), collate_fn=collate)  # type: ignore[arg-type]

    def set_epoch(self, epoch: int) -> None:
        """Go to the updates of an epoch, counted from 0."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


class _MicroBatches(Sampler[list[int]]):
    """The micro-batches of one rank and epoch; a loop that resumes skips as many as it has had."""

    def __init__(self, strata: Strata, rank: int) -> None:
        self._strata, self._rank, self._epoch = strata, rank, 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._strata) * self._strata.accumulation

    def __iter__(self) -> Iterator[list[int]]:
        steps = len(self._strata)
        for step in range(self._epoch * steps, (self._epoch + 1) * steps):
            for micro in self._strata.draw(step)[:, self._rank]:
                yield micro.tolist()
