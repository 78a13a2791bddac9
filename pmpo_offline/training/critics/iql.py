"""IQL's critic: values of recorded actions only, the better ones by an expectile; its policy is the objective `awr`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from pmpo_offline.data import Rows
from pmpo_offline.objectives import expectile_loss
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.training.critics.double_q import Adam, DoubleQ, Transitions, value_net


class ExpectileSettings(BaseModel):
    """Settings of IQL's critic; the defaults are the authors' for locomotion."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Literal["iql"]
    expectile: float = Field(default=0.7, gt=0, lt=1)
    discount: float = Field(default=0.99, ge=0, lt=1)
    hidden: tuple[int, ...] = (256, 256)
    learning_rate: float = Field(default=3e-4, gt=0)
    follow: float = Field(default=0.005, gt=0, le=1)
    """Share of the way that the slow action values move every update."""


class ExpectileCritic:
    """V and twin Q of each run.

    Kostrikov et al., *Offline reinforcement learning with implicit Q-learning*, arXiv 2110.06169: V by the expectile
    loss (Eq. 5) from the smaller of the slow action values, Q by the squared error from r + discount V(next) (Eq. 6).
    The policy clones with the weight exp(advantage / temperature) (Eq. 7), which is `objectives.awr`. As in the
    authors' code, advantages are in units in which the best recorded episode is better than the worst one by 1 for each
    step of the longest: so their inverse temperature of 3 suits any task.
    """

    delay = 1
    advantage: Tensor
    """Q - V of the rows that were learned from last, (R, B)."""

    def __init__(self, settings: ExpectileSettings, rows: Rows, seeds: Sequence[int], policy: MixturePolicy) -> None:
        self._settings = settings
        self._data = Transitions(rows, settings.discount)
        self._unit = _unit(rows)
        states, level, device = rows.states.shape[1], self._data.level, rows.states.device
        self._value = value_net([seed + 10_000 for seed in seeds], states, settings.hidden, level).to(device)
        self._q = DoubleQ(seeds, states + rows.action.shape[1], settings.hidden, level, device)
        self._adam = Adam([*self._value.parameters(), *self._q.weights], settings.learning_rate)

    @property
    def tensors(self) -> list[Tensor]:
        """All that a checkpoint has to hold; writing into these restores the critic."""
        return [*self._adam.tensors, *self._q.slow_weights]

    def learn(self, index: Tensor, step: int) -> None:
        """Update V and Q on the rows of `index`, (R, B), and keep their advantage before the update."""
        batch = self._data.at(index)
        target = self._q.least(batch.state, batch.action)
        with torch.no_grad():
            following = batch.reward + batch.discount * self._value(batch.next_state).squeeze(-1)
        value = self._value(batch.state).squeeze(-1)
        loss = expectile_loss(value, target, self._settings.expectile)
        for action_value in self._q(batch.state, batch.action):
            loss = loss + (action_value - following).square().mean(-1)
        self._adam.step(loss)
        self._q.follow(self._settings.follow)
        self.advantage = self._data.worth(target - value.detach()) * self._unit

    def value(self, index: Tensor, action: Tensor) -> Tensor:
        """Return Q of other actions (R, B, A) at the rows of `index`, (R, B), with a gradient for the actions alone."""
        return self._q.value(self._data.state(index), action)


def _unit(rows: Rows) -> float:
    """Return what rewards are multiplied by: steps of the longest episode / (best return - worst return)."""
    returns = rows.reward.new_zeros(int(rows.episode.max()) + 1).index_add(0, rows.episode, rows.reward)
    spread = float(returns.max() - returns.min())
    return float(rows.episode.bincount().max()) / spread if spread else 1.0  # equal episodes have no scale
