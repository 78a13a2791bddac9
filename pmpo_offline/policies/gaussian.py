"""The simplest policy: one diagonal Gaussian a run, the same in every state."""

from __future__ import annotations

from torch import Tensor, nn

from pmpo_offline.policies.mixture import Mixture


class GaussianPolicy(nn.Module):
    """R Gaussians over actions that know no context: what a bandit asks for, and the case that theory speaks of.

    It answers like the other policies, with a mixture (of one), so that whoever trains or scores those takes it too.

    Args:
        mean: (R, A), where each run starts.
        std: (R, A), above 0.
    """

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.runs, self.action_dim = mean.shape
        self.mean = nn.Parameter(mean.clone())
        self.log_std = nn.Parameter(std.log())

    def forward(self, observation: Tensor) -> Mixture:
        """Return the action distributions at observations (R, B, O): B times the same."""
        states = observation.shape[1]
        shape = (self.runs, states, 1, self.action_dim)
        mean, log_std = (each[:, None, None].expand(shape) for each in (self.mean, self.log_std))
        return Mixture(log_weight=mean.new_zeros(shape[:-1]), mean=mean, log_std=log_std)
