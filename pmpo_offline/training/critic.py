"""Cross-fitted critics: how good a state, and an action in it, turned out to be for the behaviour that was recorded.

Episodes are dealt into folds and every fold has its own networks, trained on the other folds: no row is ever judged by
a network that saw its return. Nor by one that heard of it: a network bootstraps the cut episodes that it learns from
by itself, because any other fold's values rest on the returns of its own fold. All folds train as one stack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from pmpo_offline.data import Rows
from pmpo_offline.errors import UserError
from pmpo_offline.policies.network import stacked_mlp
from pmpo_offline.training.returns import returns_to_go


class CriticSettings(BaseModel):
    """How the critics of a dataset are trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    discount: float = Field(default=0.97, ge=0, lt=1)
    folds: int = Field(default=5, ge=2)
    hidden: tuple[int, ...] = (128, 128)
    updates: int = Field(default=1500, ge=1)
    """Updates a sweep; the targets are renewed between sweeps, because cut episodes are bootstrapped."""
    sweeps: int = Field(default=3, ge=1)
    batch: int = Field(default=512, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    trace: float = Field(default=1.0, ge=0, le=1)
    """λ of the returns: 1 trusts the rewards alone, less trusts V for what comes later, and has less noise."""


@dataclass(frozen=True)
class Judgement:
    """What the critics say of the recorded rows, each row judged by networks that never saw its episode."""

    returns: Tensor
    """Discounted λ-return with cut episodes bootstrapped, (N,)."""
    value: Tensor
    """V(s), (N,)."""
    action_value: Callable[[Tensor, Tensor], Tensor]
    """Q of other actions: rows (S,) and actions (S, K, A) -> (S, K)."""
    explained: float
    """Share of the variance of the returns that V explains on episodes it never saw."""

    @property
    def advantage(self) -> Tensor:
        """Return-to-go less V, (N,)."""
        return self.returns - self.value


def judge(
    rows: Rows, settings: CriticSettings, seed: int, progress: Callable[[str, int, int], None] | None = None
) -> Judgement:
    """Fit V, then Q, on the recorded rows of a dataset; `UserError` if there is one episode only."""
    episodes = int(rows.episode.max()) + 1
    if episodes < 2:
        raise UserError("one episode cannot be judged by a critic that learned from others: collect more episodes")
    fold_of_episode = np.random.default_rng([seed, 1]).permutation(np.arange(episodes) % settings.folds)
    fold = torch.from_numpy(fold_of_episode)[rows.episode]
    scale = 1 - settings.discount  # brings values to the size of one reward

    mean, std = rows.observation.mean(0), rows.observation.std(0).clamp(min=1e-3)
    states = ((rows.states - mean) / std).clamp(-10, 10)
    total = settings.updates * (settings.sweeps + 1)

    def fit(network: nn.Module, inputs: Tensor, targets: Tensor, stage: int) -> None:
        _regress(network, inputs, targets, fold, settings, seed, stage, total, progress)

    folds = range(settings.folds)
    value_net = stacked_mlp([seed + f for f in folds], states.shape[1], settings.hidden, 1)
    n = len(rows)

    def targets(trace: float) -> Tensor:
        """Returns-to-go as each fold's network sees them, (folds, N), in units of one reward."""
        following = _all_folds(value_net, states[rows.next_row]) / scale
        return returns_to_go(rows, settings.discount, following, trace) * scale

    for sweep in range(settings.sweeps):
        # A network that knows nothing yet is asked for the value of cut ends only.
        fit(value_net, states[:n], targets(settings.trace if sweep else 1.0), sweep)
    seen = targets(settings.trace)
    returns = _own(seen, fold) / scale
    value = _own(_all_folds(value_net, states[:n]), fold) / scale

    action_net = stacked_mlp(
        [seed + 100 + f for f in folds], states.shape[1] + rows.action.shape[1], settings.hidden, 1
    )
    fit(action_net, torch.cat([states[:n], rows.action], dim=1), seen, settings.sweeps)

    def action_value(row: Tensor, action: Tensor) -> Tensor:
        k = action.shape[1]
        inputs = torch.cat([states[row].repeat_interleave(k, 0), action.flatten(0, 1)], dim=1)
        return _own(_all_folds(action_net, inputs), fold[row].repeat_interleave(k)).view(-1, k) / scale

    explained = 1 - float((returns - value).square().mean() / returns.var())
    return Judgement(returns, value, action_value, explained)


def _regress(
    network: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    fold: Tensor,
    settings: CriticSettings,
    seed: int,
    stage: int,
    total: int,
    progress: Callable[[str, int, int], None] | None,
) -> None:
    """Minimise the squared error of each fold's network on the other folds' rows; targets are (folds, N)."""
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=settings.updates)
    others = [torch.nonzero(fold != f).squeeze(1) for f in range(settings.folds)]
    generator = torch.Generator().manual_seed(seed * 1000 + stage)
    for update in range(settings.updates):
        drawn = [pool[torch.randint(len(pool), (settings.batch,), generator=generator)] for pool in others]
        index = torch.stack(drawn)
        error = network(inputs[index]).squeeze(-1) - targets.gather(1, index)
        optimizer.zero_grad()
        error.square().mean(1).sum().backward()
        optimizer.step()
        schedule.step()
        if progress and update % 50 == 49:
            progress("fit the critic", stage * settings.updates + update + 1, total)


@torch.no_grad()
def _all_folds(network: nn.Module, inputs: Tensor) -> Tensor:
    """Evaluate rows with the network of every fold, (M, I) -> (folds, M)."""
    folds = network[0].weight.shape[0]  # type: ignore[index]
    parts = [network(part.expand(folds, -1, -1)).squeeze(-1) for part in torch.split(inputs, 16384)]
    return torch.cat(parts, dim=1)


def _own(values: Tensor, fold: Tensor) -> Tensor:
    """Pick for each row what the network of its own fold says, which was trained without it: (folds, M) -> (M,)."""
    return values.gather(0, fold.unsqueeze(0)).squeeze(0)
