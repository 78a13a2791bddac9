"""The policy of the bandit experiment: one diagonal Gaussian a run, the same in every state."""

from __future__ import annotations

from torch import Tensor, nn

from pmpo_offline.policies.mixture import Mixture


class GaussianPolicy(nn.Module):
    """R Gaussians over actions without context, for bandits; the case that `objectives.stability` solves.

    Like the other policies it returns mixtures (of one component), so the same code trains and scores it.

    Args:
        mean: (R, A), the initial means.
        std: (R, A), the initial deviations, above 0.
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
