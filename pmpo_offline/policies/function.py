"""A function from observations to actions as a policy, so that tasks score it as they score trained ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pmpo_offline.policies.mixture import MixturePolicy
from pmpo_offline.runtime.errors import UserError

Act = Callable[[NDArray[np.float32]], Any]
"""From observations (n, O) to actions (n, A), numbers or tensors."""


@dataclass(frozen=True)
class Point:
    """A distribution that is one action at each of (1, B) states: `mixture.Mixture` without its spread."""

    action: Tensor
    """(1, B, A)."""

    def mode(self) -> Tensor:
        """Return the action, (1, B, A)."""
        return self.action

    def component(self, uniform: Tensor) -> Tensor:
        """Return the action; there is nothing to choose."""
        return self.action

    def sample(self, uniform: Tensor, normal: Tensor) -> Tensor:
        """Return the action; there is nothing to draw."""
        return self.action


class FunctionPolicy:
    """One run whose actions a function chooses.

    Args:
        act: from observations (n, O) to actions (n, A).
        action_dim: A, which every answer of the function is checked for.
    """

    runs = 1

    def __init__(self, act: Act, action_dim: int) -> None:
        self._act, self.action_dim = act, action_dim
        self.observation_mean = torch.zeros(0)  # on the device that observations are expected on

    def __call__(self, observation: Tensor) -> Point:
        """Return the actions at observations (1, B, O); `UserError` if the function returns another shape."""
        seen = observation[0].numpy()
        action = torch.as_tensor(np.asarray(self._act(seen)), dtype=torch.float32)
        if action.shape != (len(seen), self.action_dim):
            raise UserError(
                f"the policy returned actions of shape {tuple(action.shape)} for observations {seen.shape}: expected "
                f"({len(seen)}, {self.action_dim}), one action a row"
            )
        return Point(action.unsqueeze(0))


Policy = MixturePolicy | FunctionPolicy
"""What a task scores."""
