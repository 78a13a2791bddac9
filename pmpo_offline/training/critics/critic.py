"""What critics that learn beside a policy have in common: an interface, the states that they see, and double Q."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pmpo_offline.data import Rows
from pmpo_offline.policies.network import stacked_mlp
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


class DoubleQ:
    """Two action values a run, and their target networks.

    Args:
        seeds: one a run.
        inputs: O + A.
        hidden: widths of the hidden layers.
        level: where the values start.
    """

    def __init__(self, seeds: Sequence[int], inputs: int, hidden: Sequence[int], level: float, device: torch.device):
        # Seeds of their own, far from the policy's and from those of other runs.
        self._networks = [
            value_net([seed + start for seed in seeds], inputs, hidden, level).to(device) for start in (20_000, 30_000)
        ]
        self._slow = [deepcopy(network).requires_grad_(False) for network in self._networks]
        self._still = _still(self._networks[0])
        self.weights = [weight for network in self._networks for weight in network.parameters()]
        self.slow_weights = [weight.data for network in self._slow for weight in network.parameters()]

    def __call__(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return both values, (R, B) each."""
        inputs = torch.cat([state, action], dim=-1)
        first, second = (network(inputs).squeeze(-1) for network in self._networks)
        return first, second

    def value(self, state: Tensor, action: Tensor) -> Tensor:
        """Return the first value, (R, B), with a gradient for the actions and none for the weights."""
        value: Tensor = self._still(torch.cat([state, action], dim=-1)).squeeze(-1)
        return value

    @torch.no_grad()
    def least(self, state: Tensor, action: Tensor) -> Tensor:
        """Return the smaller value of the slow copies, (R, B)."""
        inputs = torch.cat([state, action], dim=-1)
        return torch.minimum(*(network(inputs).squeeze(-1) for network in self._slow))

    def follow(self, rate: float) -> None:
        """Move the slow copies by a share of the way."""
        torch._foreach_lerp_(self.slow_weights, [weight.detach() for weight in self.weights], rate)


def normalised(states: Tensor, rows: Rows) -> Tensor:
    """Return states (N, O) by the means and deviations of the recorded observations' columns, as policies see them."""
    seen = rows.observation
    deviation = seen.std(0, correction=min(1, len(rows) - 1)).clamp(min=1e-3)
    return ((states - seen.mean(0)) / deviation).clamp(-10, 10)


def value_net(seeds: Sequence[int], inputs: int, hidden: Sequence[int], level: float) -> nn.Sequential:
    """Build R networks with one output that starts near `level`."""
    network = stacked_mlp(seeds, inputs, hidden, 1)
    with torch.no_grad():
        network[-1].bias.fill_(level)  # type: ignore[operator]
    return network


def _still(network: nn.Module) -> nn.Module:
    """Return the network without gradients on the same storage: what moves there is seen here."""
    view = deepcopy(network)
    for mine, theirs in zip(view.parameters(), network.parameters(), strict=True):
        mine.data = theirs.data
    return view.requires_grad_(False)
