"""Gaussian policies: the mean is a small tanh network, the standard deviation is the same in every state.

It has the form of the behaviours that ship with the package, so that what was learned online can be saved as one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from pmpo_offline.policies.mixture import Mixture
from pmpo_offline.policies.network import StackedLinear


class PerceptronPolicy(nn.Module):
    """R Gaussians over actions: mean(s) of a tanh network, and one log-deviation an action dimension.

    The mean is not squashed: the environment clips actions, as with the other policies.

    Args:
        seeds: one initialisation seed a run; R is their number.
        widths: O, those of the tanh layers, A; observations are expected to be normalised by the caller.
        std: the deviation that every run begins with, above 0.
        pace: how fast the deviation learns beside the mean, whose weights Adam moves by as much an update: the smaller,
            the longer a run explores.
    """

    def __init__(self, seeds: Sequence[int], widths: Sequence[int], *, std: float, pace: float) -> None:
        super().__init__()
        self.runs, self.action_dim = len(seeds), widths[-1]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths[:-1]):
            layers += [StackedLinear(generators, inputs, outputs), nn.Tanh()]
        self.network = nn.Sequential(*layers, StackedLinear(generators, widths[-2], widths[-1], gain=0.1))
        self.wider = nn.Parameter(torch.zeros(self.runs, 1, self.action_dim))
        self._start, self._pace = math.log(std), pace

    @property
    def log_std(self) -> Tensor:
        """(R, 1, A)."""
        return self._start + self._pace * self.wider

    def forward(self, observation: Tensor) -> Mixture:
        """Return the action distributions at normalised observations (R, B, O)."""
        mean = self.network(observation).unsqueeze(-2)  # (R, B, 1, A): a mixture of one
        return Mixture(mean.new_zeros(mean.shape[:-1]), mean, self.log_std.unsqueeze(-2).expand_as(mean))
