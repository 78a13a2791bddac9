"""What improves a policy online, and how control tasks are learned: the algorithms, and what they have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from pmpo_offline.online.improver import OnlineSettings
from pmpo_offline.training.control.constraints import Constraints


@dataclass(frozen=True)
class Algorithm:
    """A way of learning from scored candidates."""

    objective: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the objective, over its defaults; numbers may be tensors (R, 1)."""
    constraints: Constraints | None = None
    learning_rate: float | Tensor = 1e-3
    """Of the policy; a number or (R, 1)."""
    shuffled: Tensor | None = None
    """(R,) bool, the control: such a run is told the scores of a state's candidates in random order."""


ALGORITHMS = {
    "pmpo": Algorithm("pmpo", {"alpha": 0.5, "beta": 0.6, "divergence": "forward"}),
    "mpo": Algorithm("mpo", constraints=Constraints(target=0.3, mean=0.01, std=1e-4, start=(0.01, 1.0, 100.0))),
    "dpo": Algorithm("dpo", {"beta": 0.3}),
}
"""By name, as `train-behavior --algo` knows them."""


class ControlSettings(BaseModel):
    """How control tasks are learned online, equal for all algorithms and for all runs of a stack."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    environments: int = Field(default=32, ge=1)
    """A run."""
    repeat: int = Field(default=2, ge=1)
    """Control steps that an action is held for in training; whoever evaluates acts at every one."""
    ticks: int = Field(default=10_000, ge=1)
    """Newest decisions of every environment that the replay holds."""
    warmup: int = Field(default=100, ge=1)
    """Ticks before the first update."""
    length: int = Field(default=16, ge=1)
    """Decisions of a stretch, over which returns are traced."""
    stretches: int = Field(default=8, ge=1)
    """Drawn for an update, which there is one of every tick."""
    thin: int = Field(default=2, ge=1)
    """The policy is improved at every so-manieth state of them: neighbours are alike."""
    discount: float = Field(default=0.99, ge=0, lt=1)
    """A decision."""
    trace: float = Field(default=0.95, ge=0, le=1)
    """Retrace's λ."""
    hidden: tuple[int, int] = (64, 64)
    """Of the policy, as behaviours have it."""
    critic_hidden: tuple[int, ...] = (128, 128)
    critic_rate: float = Field(default=1e-3, gt=0)
    tracking: float = Field(default=0.02, gt=0, le=1)
    """Share of the way that Q's slow copies move every update."""
    std: float = Field(default=0.8, gt=0)
    """With which exploration begins."""
    pace: float = Field(default=0.03, gt=0)
    """How fast the deviation learns beside the mean; at 1 every objective but MPO stops exploring long before it knows
    how to stand a pole up."""
    outside: float = Field(default=1e-3, ge=0)
    """What a candidate's squared distance from the box of actions costs, in rewards: all actions beyond a wall do the
    same, and without a cost the mean drifts off where nothing is explored. A large cost narrows the policy instead."""
    improvement: OnlineSettings = OnlineSettings(refresh=0.005)

    @model_validator(mode="after")
    def _stretches_fit(self) -> Self:
        if self.length >= min(self.warmup, self.ticks):
            raise ValueError(
                f"stretches of {self.length} decisions are longer than the {min(self.warmup, self.ticks)} ticks there "
                "are before the first update: lower length, or raise warmup and ticks"
            )
        return self
