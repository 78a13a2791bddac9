"""What every critic that learns beside a policy can be asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor

from pmpo_offline.runtime.errors import UserError

if TYPE_CHECKING:
    from pmpo_offline.training.control.batches import RowBatch


class Critic(ABC):
    """Learns from the rows of each minibatch before the policy does, and values them."""

    delay = 1
    """Its updates to one of the policy."""
    tensors: list[Tensor]
    """All that a checkpoint has to hold; writing into these restores the critic."""

    @abstractmethod
    def learn(self, batch: RowBatch, step: int) -> None:
        """Learn from the rows of a minibatch in update `step`."""

    @property
    def advantage(self) -> Tensor:
        """Advantages of the recorded actions of the last minibatch, in the rewards' own units, (R, B)."""
        raise UserError("this critic has no advantages: declare one of rewards (iql) in [critic]")

    def value(self, index: Tensor, action: Tensor) -> Tensor:
        """Return Q of actions (R, B, A) at the rows of `index`, (R, B), with a gradient for the actions alone."""
        raise UserError("this critic has no values of actions: declare one of rewards (td3) in [critic]")

    @property
    def state_value(self) -> Tensor:
        """The soft value of the labels at the rows of the last minibatch, detached, (R, B)."""
        raise UserError('this critic values rewards, not labels: declare kind = "dro" in [critic]')
