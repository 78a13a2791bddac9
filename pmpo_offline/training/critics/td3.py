"""TD3's critic: twin values of what the policy itself would do next; the policy's side is the objective `td3_bc`."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn.functional import embedding

from pmpo_offline.data import Rows
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.training.critics.double_q import Adam, DoubleQ, Transitions


class TwinDelayedSettings(BaseModel):
    """Settings of TD3's critic; the defaults are the authors'."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Literal["td3"]
    discount: float = Field(default=0.99, ge=0, lt=1)
    hidden: tuple[int, ...] = (256, 256)
    learning_rate: float = Field(default=3e-4, gt=0)
    follow: float = Field(default=0.005, gt=0, le=1)
    """Share of the way that the slow networks move whenever the policy does."""
    noise: float = Field(default=0.2, ge=0)
    """Deviation of what is added to the next action."""
    clip: float = Field(default=0.5, ge=0)
    """Largest size of that."""
    delay: int = Field(default=2, ge=1)
    """Updates of the critic to one of the policy."""


class TwinDelayedCritic:
    """Twin Q of each run, and a slow copy of its policy.

    Fujimoto et al., *Addressing function approximation error in actor-critic methods*, arXiv 1802.09477, Algorithm 1: Q
    by the squared error from r + discount * the smaller slow value of the slow policy's next action, to which clipped
    noise was added (Eq. 14). Actions are means, clipped to [-1, 1] as the environment clips them.
    """

    def __init__(self, settings: TwinDelayedSettings, rows: Rows, seeds: Sequence[int], policy: MixturePolicy) -> None:
        self._settings, self._rows, self._policy = settings, rows, policy
        self.delay = settings.delay
        self._data = Transitions(rows, settings.discount)
        inputs = rows.states.shape[1] + rows.action.shape[1]
        self._q = DoubleQ(seeds, inputs, settings.hidden, self._data.level, rows.states.device)
        self._slow = deepcopy(policy).requires_grad_(False)
        self._adam = Adam(self._q.weights, settings.learning_rate)
        self._index: Tensor

    @property
    def tensors(self) -> list[Tensor]:
        """All that a checkpoint has to hold; writing into these restores the critic."""
        return [*self._adam.tensors, *self._q.slow_weights, *(each.data for each in self._slow.parameters())]

    def learn(self, index: Tensor, step: int) -> None:
        """Update Q on the rows of `index`, (R, B); `step` seeds the noise, which all runs share."""
        batch, settings = self._data.at(index), self._settings
        with torch.no_grad():
            next_action = self._slow(embedding(self._rows.next_row[index], self._rows.states)).mode()
            normal = torch.randn(next_action.shape[1:], generator=torch.Generator().manual_seed(step))
            noise = (normal * settings.noise).clamp(-settings.clip, settings.clip).to(next_action.device)
            next_action = (next_action.clamp(-1, 1) + noise).clamp(-1, 1)
            following = batch.reward + batch.discount * self._q.least(batch.next_state, next_action)
        first, second = self._q(batch.state, batch.action)
        self._adam.step((first - following).square().mean(-1) + (second - following).square().mean(-1))
        if step % self.delay == 0:
            self._q.follow(settings.follow)
            torch._foreach_lerp_(
                [each.data for each in self._slow.parameters()],
                [each.data for each in self._policy.parameters()],
                settings.follow,
            )
        self._index = index

    @property
    def advantage(self) -> Tensor:
        """Q of the actions that were learned from last less Q of the policy's own there, (R, B)."""
        with torch.no_grad():
            own = self._policy(embedding(self._index, self._rows.observation)).mode().clamp(-1, 1)
            better = self.value(self._index, embedding(self._index, self._rows.action)) - self.value(self._index, own)
        return self._data.worth(better)

    def value(self, index: Tensor, action: Tensor) -> Tensor:
        """Return Q of other actions (R, B, A) at the rows of `index`, (R, B), with a gradient for the actions alone."""
        return self._q.value(self._data.state(index), action)
