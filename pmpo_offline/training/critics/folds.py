"""Cross-fitting: episodes dealt into folds, and for every fold networks that learn from the other folds alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pmpo_offline.data import Rows
from pmpo_offline.policies.network import stacked_mlp
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import UserError

_AT_ONCE = 16384  # rows


class Folds:
    """The F folds of N rows. All their networks train as one stack, network f on the rows that are not of fold f.

    Args:
        rows: recorded steps.
        folds: F; `UserError` if there is one episode only.
        seed: of the deal and of the minibatches.
        updates: gradient steps a fit.
        batch: rows a step and fold.
        learning_rate: the highest of one cycle.
        weight_decay: AdamW's.
        fits: how many fits there will be, for the progress that is reported.
    """

    def __init__(
        self,
        rows: Rows,
        folds: int,
        seed: int,
        *,
        updates: int,
        batch: int,
        learning_rate: float,
        weight_decay: float,
        fits: int,
    ) -> None:
        episodes = int(rows.episode.max()) + 1
        if episodes < 2:
            raise UserError("one episode cannot be judged by a critic that learned from others: collect more episodes")
        dealt = np.random.default_rng([seed, 1]).permutation(np.arange(episodes) % folds)
        self.of_row = torch.from_numpy(dealt)[rows.episode]
        """The fold of each row, (N,)."""
        self._others = [torch.nonzero(self.of_row != fold).squeeze(1) for fold in range(folds)]
        self._seed, self._updates, self._batch = seed, updates, batch
        self._rate, self._decay, self._total = learning_rate, weight_decay, fits * updates

    def networks(self, offset: int, inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
        """Return one perceptron a fold; `offset` keeps the seeds of several apart."""
        return stacked_mlp([self._seed + offset + f for f in range(len(self._others))], inputs, hidden, outputs)

    def fit(self, network: nn.Module, loss: Callable[[Tensor], Tensor], stage: int) -> None:
        """Minimise a loss of row indices (F, B) -> (F,), each fold's drawn from the other folds."""
        optimizer = torch.optim.AdamW(network.parameters(), lr=self._rate, weight_decay=self._decay, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self._rate, total_steps=self._updates)
        generator = torch.Generator().manual_seed(self._seed * 1000 + stage)
        for update in range(self._updates):
            drawn = [pool[torch.randint(len(pool), (self._batch,), generator=generator)] for pool in self._others]
            each = loss(torch.stack(drawn))
            optimizer.zero_grad()
            each.sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            if update % 50 == 49:
                progress.report("fit the critic", stage * self._updates + update + 1, self._total)

    def own(self, values: Tensor, row: Tensor | None = None) -> Tensor:
        """Pick for each row what its own fold's network says, which never saw it: (F, M, …) -> (M, …).

        The values are of all rows, or of the M that are named.
        """
        fold = self.of_row if row is None else self.of_row[row]
        return values[fold, torch.arange(len(fold))]

    def spread(self, values: Tensor) -> Tensor:
        """Return the deviations of values (F, N, …) over the rows that each fold's network learns from, (F, 1, …)."""
        found = [value[pool].std(0, keepdim=True) for value, pool in zip(values, self._others, strict=True)]
        return torch.stack(found)


@torch.no_grad()
def evaluate(network: nn.Sequential, inputs: Tensor) -> Tensor:
    """Evaluate rows with the network of every fold, (M, I) -> (F, M, outputs)."""
    folds = len(next(network.parameters()))
    parts = [network(part.expand(folds, -1, -1)) for part in torch.split(inputs, _AT_ONCE)]
    return torch.cat(parts, dim=1)
