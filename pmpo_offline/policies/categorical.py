"""Categorical policies: a choice among a number of discrete actions, which are one-hot vectors to the learner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pmpo_offline.policies.mixture import Mixture, MixturePolicy


@dataclass(frozen=True)
class Categorical(Mixture):
    """A choice among K actions at each of (R, B) states: a mixture of K points, the one-hot vectors.

    `log_weight` (R, B, K) are the log-probabilities; `log_prob` is one of them, no density.
    """

    @classmethod
    def of(cls, log_probability: Tensor) -> Self:
        """Return the distribution with these normalised log-probabilities (R, B, K)."""
        k = log_probability.shape[-1]
        points = torch.eye(k, device=log_probability.device).expand(*log_probability.shape, k)
        return cls(log_probability, points, torch.full_like(points, -torch.inf))

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-probability of one-hot actions, nats: (R, B, K) -> (R, B), or (R, B, M, K) -> (R, B, M)."""
        logs = self.log_weight if action.dim() == self.log_weight.dim() else self.log_weight.unsqueeze(-2)
        return (logs * action).sum(-1)

    def sample(self, uniform: Tensor, normal: Tensor) -> Tensor:
        """Draw one action a state, (R, B, K), by `uniform` numbers; `normal` ones are not needed."""
        return self.component(uniform)


class CategoricalPolicy(MixturePolicy):
    """R policies over K discrete actions; arguments are those of `MixturePolicy`, `action_dim` is K."""

    format = "pmpo-offline categorical policy 1"

    def __init__(
        self,
        seeds: Sequence[int],
        observation_mean: Tensor,
        observation_std: Tensor,
        action_dim: int,
        **settings: Any,
    ) -> None:
        super().__init__(seeds, observation_mean, observation_std, action_dim, **{**settings, "components": action_dim})

    def predict(self, observation: ArrayLike) -> NDArray[np.int64]:
        """Return the likeliest action of each observation, counted from 0: like `MixturePolicy.predict`, without A."""
        chosen: NDArray[np.int64] = super().predict(observation).argmax(-1)
        return chosen

    @staticmethod
    def _outputs(components: int, action_dim: int) -> int:
        return action_dim

    def _spread(self, seeds: Sequence[int]) -> None:
        """Leave the start as it is: nearly uniform."""

    def _distribution(self, head: Tensor) -> Categorical:
        return Categorical.of(torch.log_softmax(head, dim=-1))
