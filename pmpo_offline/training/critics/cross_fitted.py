"""Cross-fitted critics: how good a state, and an action in it, turned out to be for the behaviour that was recorded.

Episodes are dealt into folds and every fold has its own networks, trained on the other folds: no row is ever judged by
a network that saw its return. Nor by one that heard of it: a network bootstraps the cut episodes that it learns from
by itself, because any other fold's values rest on the returns of its own fold. All folds train as one stack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from pmpo_offline.data import Rows
from pmpo_offline.training.critics.first_order import FITS, first_order
from pmpo_offline.training.critics.folds import Folds, evaluate
from pmpo_offline.training.critics.returns import returns_to_go


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
    """λ of the returns that V is compared with: 1 trusts the rewards alone, less trusts V for what comes later, and has
    less noise. V itself is fitted on whole returns, because from others it learns its own errors."""
    action_value: Literal["network", "first_order"] = "network"
    """What tells actions of one state apart: a network of both, or V and the advantage to first order in the action."""
    advantage: Literal["recorded", "fitted"] = "recorded"
    """Recorded: a row's own return less V, with all its luck. Fitted: Q less V, what such actions gained elsewhere."""


@dataclass(frozen=True)
class Judgement:
    """What the critics say of the recorded rows, each row judged by networks that never saw its episode."""

    returns: Tensor
    """Discounted λ-return with cut episodes bootstrapped, (N,)."""
    value: Tensor
    """V(s), (N,)."""
    advantage: Tensor
    """A(s, a) of the recorded actions, (N,)."""
    action_value: Callable[[Tensor, Tensor], Tensor]
    """Q of other actions: rows (S,) and actions (S, K, A) -> (S, K)."""
    explained: float
    """Share of the variance of whole returns that V explains on episodes it never saw."""


def judge(rows: Rows, settings: CriticSettings, seed: int) -> Judgement:
    """Fit V, then how it differs by action, on a dataset's rows; `UserError` if there is one episode only."""
    expanded = settings.action_value == "first_order"
    folds = Folds(
        rows,
        settings.folds,
        seed,
        updates=settings.updates,
        batch=settings.batch,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fits=settings.sweeps + (FITS if expanded else 1),
    )
    scale = 1 - settings.discount  # brings values to the size of one reward
    mean, std = rows.observation.mean(0), rows.observation.std(0).clamp(min=1e-3)
    every = ((rows.states - mean) / std).clamp(-10, 10)
    states = every[: len(rows)]

    value_net = folds.networks(0, states.shape[1], settings.hidden, 1)

    def targets(trace: float) -> Tensor:
        """Returns-to-go as each fold's network sees them, (folds, N), in units of one reward."""
        following = evaluate(value_net, every[rows.next_row]).squeeze(-1) / scale
        return returns_to_go(rows, settings.discount, following, trace) * scale

    for sweep in range(settings.sweeps):
        folds.fit(value_net, _squared_error(value_net, states, targets(trace=1.0)), sweep)
    seen = targets(settings.trace)
    values = evaluate(value_net, states).squeeze(-1)
    returns, value = folds.own(seen) / scale, folds.own(values) / scale
    whole = folds.own(targets(trace=1.0)) / scale
    variance = float(whole.var())
    explained = 1 - float((whole - value).square().mean()) / variance if variance else 0.0  # nothing to explain

    if expanded:
        gained = first_order(folds, states, rows.action, (seen - values) / scale, settings.hidden, settings.sweeps)

        def action_value(row: Tensor, action: Tensor) -> Tensor:
            return value[row].unsqueeze(1) + gained(row, action)
    else:
        inputs = torch.cat([states, rows.action], dim=1)
        action_net = folds.networks(100, inputs.shape[1], settings.hidden, 1)
        folds.fit(action_net, _squared_error(action_net, inputs, seen), settings.sweeps)

        def action_value(row: Tensor, action: Tensor) -> Tensor:
            k = action.shape[1]
            repeated = row.repeat_interleave(k)
            pairs = torch.cat([states[repeated], action.flatten(0, 1)], dim=1)
            return folds.own(evaluate(action_net, pairs).squeeze(-1), repeated).view(-1, k) / scale

    advantage = returns - value
    if settings.advantage == "fitted":
        advantage = action_value(torch.arange(len(rows)), rows.action.unsqueeze(1)).squeeze(1) - value
    return Judgement(returns, value, advantage, action_value, explained)


def _squared_error(network: nn.Module, inputs: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the loss of each fold's network, whose targets are (folds, N), on rows that a fit draws."""
    return lambda index: (network(inputs[index]).squeeze(-1) - targets.gather(1, index)).square().mean(1)
