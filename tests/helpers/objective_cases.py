"""Every objective, with the settings that change what is computed, and inputs at random."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from pmpo_offline.objectives import OBJECTIVES, Objective

ROWS, CANDIDATES = 6, 3
LEARNED = (
    *("logp", "conditional_logp", "own_logp", "divergence", "group_logp"),
    *("logp_chosen", "logp_rejected", "distance"),
)
"""What depends on the policy; `policy_value` too, but TD3+BC divides by it without a gradient."""
LABELLED = [name for name, objective in OBJECTIVES.items() if "label" in objective.inputs.values()]
PAIRED = [name for name, objective in OBJECTIVES.items() if "logp_chosen" in objective.inputs.values()]
LAWS = (
    *("exact stacking", "accepts rise", "rejects sink", "one class teaches", "unlabelled rows"),
    *("extreme values", "gradient everywhere", "flipped labels"),
)
"""What an objective may be exempt from."""


@dataclass(frozen=True)
class Case:
    """An objective with settings of its own, called as the objective is."""

    objective: Objective
    settings: dict[str, Any] = field(default_factory=dict)

    def __call__(self, inputs: dict[str, Tensor], **more: Any) -> tuple[Tensor, dict[str, Tensor]]:
        return self.objective(inputs, **{**self.settings, **more})

    @property
    def numbers(self) -> list[str]:
        """The loss's settings that may differ from run to run."""
        own = self.objective.settings.keys() - self.objective.caller.keys()
        return sorted(name for name in own if isinstance(self.objective.settings[name], float))


CASES = {name: Case(objective) for name, objective in OBJECTIVES.items()} | {
    f"{name}, {title}": Case(objective, dict(settings))
    for name, objective in OBJECTIVES.items()
    for title, settings in objective.variants.items()
}

every_objective = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES.keys())

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def sample(*runs: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Every input of the vocabulary at random, three labels in equal parts."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn((*runs, *shape), generator=generator, dtype=torch.float64).to(dtype)

    rows = {
        name: draw(ROWS) - 2
        for name in ("logp", "ref_logp", "logp_chosen", "logp_rejected", "ref_chosen", "ref_rejected")
    }
    rows["conditional_logp"] = draw(ROWS) - 2
    groups = {name: draw(ROWS, CANDIDATES) for name in ("group_logp", "group_score", "own_logp", "own_ref_logp")}
    lengths = {name: draw(ROWS).abs() * 9 + 1 for name in ("length_chosen", "length_rejected")}
    label = torch.tensor([1.0, 1.0, -1.0, -1.0, 0.0, 0.0], dtype=dtype).expand(*runs, ROWS)
    once = {"advantage": draw(ROWS), "divergence": draw().square(), "policy_kl": draw().square()}
    once |= {"policy_value": draw(ROWS), "distance": draw(ROWS).square()}
    shares = {name: draw(ROWS).sigmoid() for name in ("accept_rate", "state_value")}
    return {**rows, **groups, **lengths, **once, **shares, "label": label}


def learned(objective: Objective, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The objective's inputs that carry a gradient, made leaves in place."""
    names = [name for name in objective.inputs.values() if name in LEARNED]
    inputs.update({name: inputs[name].clone().requires_grad_() for name in names})
    return {name: inputs[name] for name in names}


def by_rows(inputs: dict[str, Tensor], index: Tensor) -> dict[str, Tensor]:
    """A batch of these rows, for inputs without runs."""
    return {name: value[index] if value.dim() else value for name, value in inputs.items()}
