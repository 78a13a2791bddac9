"""The rows, states or pairs that each run of a stack draws for its minibatches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pmpo_offline.data import Dataset, Rows, columns, indices, pairs
from pmpo_offline.data.gathering import Steps
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.training.config import PARTS_BY_LABEL
from pmpo_offline.training.control.batches import CandidateBatch, LabelPairBatch, Learner, PairBatch, RowBatch
from pmpo_offline.training.shuffle import shuffled

_MANY = 1 << 62  # a population so large that its remainder by a pool's size is uniform for all purposes


class Pools:
    """Entries that each run draws from: one pool a run, or one that all share.

    Args:
        pools: (L,) int64 tensors, one a run or just one.
    """

    def __init__(self, pools: Sequence[Tensor]) -> None:
        self.size = torch.tensor([len(pool) for pool in pools], device=pools[0].device).unsqueeze(1)
        padded = torch.nn.utils.rnn.pad_sequence(list(pools), batch_first=True) if pools[1:] else pools[0].unsqueeze(0)
        self.entries = padded.int() if self.size.max() and padded.max() < 2**31 else padded  # half the memory
        if not self.size.all():
            raise UserError("the labels leave this algorithm nothing to learn from: no such rows or pairs are labelled")

    def draw(self, seeds: Sequence[int], step: int, batch: int) -> Tensor:
        """Return (R, batch) entries; a pure function of each run's seed and the step."""
        place = indices(seeds, step, batch, _MANY, self.size.device) % self.size
        return self.entries.expand(len(seeds), -1).gather(1, place).long()


@dataclass(frozen=True)
class Population:
    """All of `size` entries, which every run draws from: the draws are those of a pool that lists them."""

    size: int
    device: torch.device

    def draw(self, seeds: Sequence[int], step: int, batch: int) -> Tensor:
        """Return (R, batch) entries; a pure function of each run's seed and the step."""
        return indices(seeds, step, batch, _MANY, self.device) % self.size


class Sampler:
    """Draws the minibatches of a stack of runs.

    Args:
        dataset: labelled transitions.
        algorithm: its `rows` say what a minibatch is made of.
        seeds: one a run.
        shuffle: give every run labels that were permuted among all units, as a control.
        device: where the data lies.
    """

    def __init__(
        self,
        dataset: Dataset,
        algorithm: AlgorithmDeclaration,
        seeds: Sequence[int],
        *,
        shuffle: bool,
        device: torch.device,
    ) -> None:
        kind = algorithm.rows
        self.steps, self._kind, self.seeds, self.device = Steps.of(dataset, device), kind, seeds, device
        self.score, self.has_contexts = dataset.metadata.score.name, dataset.has_contexts
        self.is_discrete = dataset.metadata.actions is not None
        if kind in ("candidates", "pairs") and self.steps.candidates is None:
            raise UserError(
                "this algorithm learns from scored candidate actions and the dataset has none: choose one that learns "
                "from labels, such as pmpo, kto or bco"
            )
        # Runs of equal seed share one permutation; without shuffling all runs share the labels as they are.
        views = [shuffled(self.steps, dataset.metadata.unit, seed) for seed in seeds] if shuffle else [self.steps]
        self.label = torch.stack([view.label for view in views])  # (R or 1, N) int8
        candidates = [view.candidates for view in views if view.candidates is not None]
        if kind == "label_pairs" and dataset.has_contexts:
            raise UserError(
                "pairs of labelled steps need one context, and here observations differ, so that an accept is not "
                'better than a reject of another state: set rows = "pairs", of candidates, in the TOML'
            )
        if kind in PARTS_BY_LABEL:
            parts = [[torch.isin(each, each.new_tensor(part)) for each in self.label] for part in PARTS_BY_LABEL[kind]]
            self._parts: list[Pools | Population] = [
                Pools([rows.nonzero().squeeze(1) for rows in part]) for part in parts
            ]
        elif kind == "top":
            self._parts = [Pools([top_rows(dataset, algorithm.top).to(device)])]
        elif kind == "pairs":
            tables = [torch.stack(pairs(view), dim=1) for view in candidates]
            self._pairs = torch.nn.utils.rnn.pad_sequence(tables, batch_first=True)  # (R or 1, P, 3)
            self._parts = [Pools([torch.arange(len(table), device=device) for table in tables])]
        else:
            count = len(candidates[0].state_row) if kind == "candidates" else len(self.steps)
            self._parts = [Population(count, device)]
        self._ahead = range(0)
        """The updates whose observations and actions `_gathered` has."""
        self._gathered: dict[str, Tensor] = {}

    @cached_property
    def rows(self) -> Rows:
        """A dense copy of the transitions, which critics learn from."""
        return Rows.of(self.steps.dataset, self.device)

    def batch(self, step: int, size: int, learner: Learner) -> RowBatch | CandidateBatch | PairBatch:
        """Return the minibatch of update `step`, `size` rows, states or pairs a run."""
        parts = len(self._parts)
        if size < parts:
            raise UserError(f"batch is {size}, and a minibatch of {self._kind} rows has {parts} parts: raise it")
        index = self._draw(step, size // parts)
        candidates = self.steps.candidates
        if candidates is not None and self._kind == "candidates":
            return CandidateBatch(self.steps, candidates, index, learner)
        if candidates is not None and self._kind == "pairs":
            pair = self._pairs.expand(len(index), -1, -1).gather(1, index.unsqueeze(-1).expand(-1, -1, 3))
            return PairBatch(self.steps, candidates, pair, learner)
        kind = LabelPairBatch if self._kind == "label_pairs" else RowBatch
        return kind(self, index, step, learner)

    def _draw(self, step: int, size: int) -> Tensor:
        """Return (R, B) entries, `size` of each part."""
        return torch.cat([part.draw(self.seeds, step, size) for part in self._parts], dim=1)

    def gathered(self, name: Literal["observation", "action"], index: Tensor, step: int) -> Tensor:
        """Return a column at the rows (R, B) of update `step`, (R, B, ·).

        From large files the rows of many updates are gathered at once, which are the same: each update's are known.
        """
        count = math.ceil(self.steps.observation.ahead / index.numel())
        if count < 2:
            return getattr(self.steps, name)[index]  # type: ignore[no-any-return]
        if step not in self._ahead:
            self._ahead = range(step, step + count)
            size = index.shape[1] // len(self._parts)
            rows = torch.stack([self._draw(ahead, size) for ahead in self._ahead])
            self._gathered = {"observation": self.steps.observation[rows], "action": self.steps.action[rows]}
        return self._gathered[name][step - self._ahead.start]


def top_rows(dataset: Dataset, share: float) -> Tensor:
    """Return the rows, ascending int64, of the share of the episodes that have the highest returns, at least of one.

    Episodes are cut where they ended, as stored, and a share that is no whole number of them is rounded down; of equal
    returns the earlier episode goes first. This is "10 % BC" at 0.1 (Chen et al., *Decision Transformer*,
    arXiv 2106.01345, section 5.1).
    """
    if dataset.episodes is None:
        raise UserError(f"dataset {dataset.metadata.id} holds responses, not episodes with returns")
    returns, start, length = (columns.vector(dataset.episodes, name) for name in ("return", "start", "length"))
    count = max(1, math.floor(share * len(returns) + 1e-9))  # 0.1 of 30 is 3, whatever binary fractions say
    best = np.sort(np.argsort(-returns, kind="stable")[:count])
    return torch.from_numpy(np.concatenate([np.arange(start[e], start[e] + length[e]) for e in best]).astype(np.int64))
