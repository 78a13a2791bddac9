"""MPO's constraints: their dual variables, which are learned beside the policies of a stack.

A temperature spends a budget on the target; one multiplier holds the policy's mean near the reference's, another one
its deviation (`objectives.duals`). A run depends on its own values alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pmpo_offline.objectives import Objective
from pmpo_offline.objectives.rewards.duals import kl_over_epsilon, temperature_loss, trust_region
from pmpo_offline.objectives.rows import Setting
from pmpo_offline.policies import Mixture
from pmpo_offline.training.adam import StackedAdam
from pmpo_offline.training.checkpoint import keep_state
from pmpo_offline.training.control.divergence import decoupled_kl


@dataclass(frozen=True)
class Constraints:
    """The budgets, in nats, and how their duals are learned; a number for all runs, or (R, 1). Acme's by default.

    Raises:
        ValueError: a value that is not above 0.
    """

    target: Setting = 0.1
    """KL(target || uniform over a state's candidates)."""
    mean: Setting = 0.0025
    """The mean's part of KL(reference || policy)."""
    std: Setting = 1e-6
    """The deviation's part."""
    learning_rate: Setting = 1e-2
    """Of Adam, for the duals before the softplus that keeps them positive."""
    start: tuple[float, float, float] = (10.0, 10.0, 1000.0)
    """First values of the temperature, the mean's and the deviation's multiplier. Above 1 Adam moves a dual by no more
    than its learning rate an update: begin a multiplier at the size that it will need, which grows as its budget
    shrinks."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (torch.as_tensor(value) > 0).all():
                raise ValueError(f"{name} of the constraints is above 0, not {value}")


def check_constrained(objective: Objective, settings: Mapping[str, Any]) -> None:
    """Raise `ValueError` for an objective without scores, or one that is given its temperature or a budget."""
    if "group_score" not in objective.needs:
        raise ValueError(f"constraints with their temperature are for mpo, not for {objective.name}")
    if given := sorted({"temperature", "epsilon"} & settings.keys()):
        raise ValueError(f"{given[0]} is given and constraints learn the temperature: leave one of them out")


class Duals(nn.Module):
    """The temperature and the two multipliers of R runs.

    Args:
        constraints: their budgets.
        runs: R.
        device: of the policy.
    """

    def __init__(self, constraints: Constraints, runs: int, device: torch.device) -> None:
        super().__init__()
        self._constraints = constraints
        # The inverse of the softplus, in a form that does not overflow.
        starts = [value + math.log(-math.expm1(-value)) for value in constraints.start]
        self._raw = [torch.full((runs, 1), start, device=device, requires_grad=True) for start in starts]
        keep_state(self, raw=self._raw)
        self.optimizer = StackedAdam(self._raw, constraints.learning_rate)

    @property
    def temperature(self) -> Tensor:
        """(R, 1), detached: the objective's setting."""
        return softplus(self._raw[0]).detach()

    def __call__(
        self, policy: Mixture, reference: Mixture, score: Tensor, target_kl: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return a term to add to the loss, (R,), and how much of each budget is spent.

        Its gradient moves the policy by the penalties alone and each dual by its own loss alone.

        Args:
            policy: at the B states, with its gradient.
            reference: likewise, without.
            score: (R, B, K), of the candidates.
            target_kl: (R,), the mean divergence of the target at this temperature, as `mpo` reports it.

        Returns:
            The loss, and the metrics `target_kl_over_epsilon`, `mean_kl_over_epsilon` and `std_kl_over_epsilon`, (R,).
        """
        budget = self._constraints
        of_mean, of_std = decoupled_kl(reference, policy)  # (R, B)
        temperature, of_means, of_stds = (softplus(raw) for raw in self._raw)
        mean_penalty, mean_dual = trust_region(of_mean, of_means, budget.mean)
        std_penalty, std_dual = trust_region(of_std, of_stds, budget.std)
        duals = temperature_loss(score, temperature, budget.target) + mean_dual + std_dual
        return mean_penalty + std_penalty + duals, {
            "target_kl_over_epsilon": kl_over_epsilon(target_kl.unsqueeze(-1), budget.target),
            "mean_kl_over_epsilon": kl_over_epsilon(of_mean, budget.mean),
            "std_kl_over_epsilon": kl_over_epsilon(of_std, budget.std),
        }
