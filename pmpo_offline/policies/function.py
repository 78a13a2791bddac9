"""A function from observations to actions as a policy, so that tasks score it as they score trained ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pmpo_offline.policies.mixture import Mixture, MixturePolicy
from pmpo_offline.runtime.errors import UserError

Act = Callable[[NDArray[np.float32]], Any]
"""From observations (n, O) to actions (n, A), numbers or tensors."""


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

    def __call__(self, observation: Tensor) -> Mixture:
        """Return the actions at observations (1, B, O), each a point; `UserError` if they are of another shape."""
        seen = observation[0].numpy()
        action = torch.as_tensor(np.asarray(self._act(seen)), dtype=torch.float32)
        if action.shape != (len(seen), self.action_dim):
            raise UserError(
                f"the policy returned actions of shape {tuple(action.shape)} for observations {seen.shape}: expected "
                f"({len(seen)}, {self.action_dim}), one action a row"
            )
        point = action[None, :, None]  # (1, B, 1, A): one component without a spread
        return Mixture(torch.zeros(point.shape[:-1]), point, torch.full_like(point, -torch.inf))


Policy = MixturePolicy | FunctionPolicy
"""What a task scores."""
