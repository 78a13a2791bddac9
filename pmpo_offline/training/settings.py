"""What a training run is told: the trainer's hyperparameters, and an objective's settings completed for a dataset."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pmpo_offline.catalog import AlgorithmDeclaration
from pmpo_offline.data import Metadata
from pmpo_offline.errors import UserError, unknown
from pmpo_offline.objectives import OBJECTIVES


class TrainingSettings(BaseModel):
    """The trainer's hyperparameters, equal for all runs of a cell."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    updates: int = Field(default=3000, ge=1)
    batch: int = Field(default=256, ge=1)
    """Rows, states or pairs an update and run."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Peak of a one-cycle schedule: linear up over the first tenth, cosine down to zero."""
    weight_decay: float = Field(default=1e-4, ge=0)
    clip: float = Field(default=5.0, gt=0)
    """Largest gradient norm of a run."""
    averaging: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the running average of the weights, which is what is evaluated."""
    components: int = Field(default=5, ge=1)
    hidden: tuple[int, ...] = (256, 256, 256)
    checkpoint_every: int = Field(default=500, ge=1)


def hyperparameters(algorithm: AlgorithmDeclaration, overrides: Mapping[str, Any]) -> TrainingSettings:
    """Return an algorithm's training hyperparameters; `UserError` for one that is unknown or malformed."""
    try:
        return TrainingSettings.model_validate({**algorithm.training, **overrides})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise unknown(f"training setting of {algorithm.name}", name, TrainingSettings.model_fields) from None
        raise UserError(f"training setting {name} of {algorithm.name}: {first['msg'].lower()}") from None


def beta_bound(algorithm: AlgorithmDeclaration, settings: Mapping[str, Any], metadata: Metadata) -> float | None:
    """Return the least β at which these settings are bounded on this dataset, None if the objective has no bound.

    P_r is taken after balancing. Before it, the bound would hold for a policy that must treat the rejects whose labels
    were dropped like the labelled ones; but every state was recorded once, a network can tell them apart, and at the
    smaller bound it collapses (benchmarks/results/README.md).
    """
    bound = OBJECTIVES[algorithm.objective].bound
    if bound is None:
        return None
    return bound(
        settings["alpha"],
        reject_mass=metadata.labelled_reject_mass,
        normalize=settings["normalize"],
        reject_share=metadata.reject_share,
    )


def settle(algorithm: AlgorithmDeclaration, settings: Mapping[str, Any], metadata: Metadata) -> dict[str, Any]:
    """Complete an objective's settings for a dataset: defaults, and β given as a multiple of its bound (`"1.05x"`).

    Raises `UserError` for an unknown setting, a malformed multiple, or a bound that no β meets.
    """
    objective = OBJECTIVES[algorithm.objective]
    complete = {**objective.settings, **algorithm.settings, **settings}
    if odd := set(complete) - set(objective.settings):
        raise unknown(f"setting of {algorithm.name}", min(odd), objective.settings)
    for name, default in objective.settings.items():
        if isinstance(default, float) and isinstance(complete[name], int):
            complete[name] = float(complete[name])  # TOML and the command line write 2 for 2.0
    beta = complete.get("beta")
    if isinstance(beta, str):
        bound = beta_bound(algorithm, complete, metadata)
        try:
            factor = float(beta.removesuffix("x"))
        except ValueError:
            factor = math.nan
        if bound is None or not beta.endswith("x") or not factor >= 0:
            raise UserError(
                f'{algorithm.name}.beta is a number, or for pmpo a multiple of its bound such as "1.05x", not {beta!r}'
            )
        if math.isinf(bound):
            raise UserError(
                f"{algorithm.name} is unbounded on {metadata.id} at every β: its reference produces no rejects"
            )
        complete["beta"] = factor * bound
    return complete


def stack(settings: Sequence[Mapping[str, Any]], seeds: int, device: torch.device) -> dict[str, Any]:
    """Turn settings that differ in numbers into (R, 1) tensors; equal ones stay; words are a `UserError`."""
    stacked: dict[str, Any] = {}
    for name, first in settings[0].items():
        values = [each[name] for each in settings]
        if all(value == first for value in values):
            stacked[name] = first
        elif any(isinstance(value, str) for value in values):
            listed = ", ".join(dict.fromkeys(map(str, values)))
            raise UserError(f"settings trained together differ in numbers only, not in {name} ({listed}): give it one")
        else:
            stacked[name] = torch.tensor(values, device=device).repeat_interleave(seeds).unsqueeze(1)
    return stacked


def warn_below(
    algorithm: AlgorithmDeclaration, settings: Sequence[Mapping[str, Any]], bounds: Sequence[float | None]
) -> None:
    """Warn once of every β below its bound."""
    below = [
        (each["beta"], bound) for each, bound in zip(settings, bounds, strict=True) if bound and each["beta"] < bound
    ]
    if below:
        listed = ", ".join(f"β = {beta:g} < {bound:.3g}" for beta, bound in below)
        warnings.warn(
            f"{algorithm.name}: {listed}: below its bound the objective has no minimum and the policy may collapse",
            stacklevel=3,
        )
