"""Settings of a dataset's critics and candidates: without torch, because most builds read them and train nothing."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt


class CriticSettings(BaseModel):
    """Training of the critics of a dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    discount: float = Field(default=0.97, ge=0, lt=1)
    folds: int = Field(default=5, ge=2)
    hidden: tuple[PositiveInt, ...] = (128, 128)
    updates: int = Field(default=1500, ge=1)
    """Updates a sweep; the targets are renewed between sweeps, because cut episodes are bootstrapped."""
    sweeps: int = Field(default=3, ge=1)
    batch: int = Field(default=512, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    trace: float = Field(default=1.0, ge=0, le=1)
    """λ of the returns that V is compared with: 1 trusts the rewards alone, less trusts V for what comes later, and has
    less noise. V itself is fitted on whole returns, because from others it learns its own errors."""
    action_value: Literal["network", "first_order"] = "network"
    """How actions are valued: by a network of state and action, or by V and an advantage linear in the action."""
    advantage: Literal["recorded", "fitted"] = "recorded"
    """Recorded: a row's own return less V, with all its luck. Fitted: Q less V, what such actions gained elsewhere."""


class CandidateSettings(BaseModel):
    """Which candidate actions are scored."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    actions: int = Field(default=4, ge=2)
    """K: actions a state, drawn from a clone of the recorded behaviour."""
    states: int = Field(default=50_000, ge=1)
    """States, drawn without replacement (all, if there are fewer)."""
    updates: int = Field(default=3000, ge=1)
    """Gradient steps of the clone."""
