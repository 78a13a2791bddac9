"""What a training run is told: the trainer's hyperparameters, and an objective's settings completed for a dataset."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pmpo_offline.data import Dataset, columns
from pmpo_offline.declarations import OBJECTIVES
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.objectives import Interval
from pmpo_offline.runtime.errors import UserError, unknown
from pmpo_offline.training.bound import beta_bound, is_forward, reject_mass

MEASURED = "dataset"
"""In place of a number for `reject_mass`: what the dataset says."""


class TrainingSettings(BaseModel):
    """The trainer's hyperparameters, equal for all runs of a cell."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

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
    refresh: float = Field(default=0.0, ge=0, lt=1)
    """Share of the way that the reference moves towards the policy every update; 0: it is frozen."""
    checkpoint_every: int = Field(default=500, ge=1)


S = TypeVar("S", bound=BaseModel)


def hyperparameters(algorithm: AlgorithmDeclaration, overrides: Mapping[str, Any]) -> TrainingSettings:
    """Return an algorithm's training hyperparameters; `UserError` for one that is unknown or malformed."""
    return validated(algorithm, overrides, TrainingSettings)


def validated(algorithm: AlgorithmDeclaration, overrides: Mapping[str, Any], kind: type[S]) -> S:
    """Return the hyperparameters of another trainer, of this kind; `UserError` likewise."""
    try:
        return kind.model_validate({**algorithm.training, **overrides})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise unknown(f"training setting of {algorithm.name}", name, kind.model_fields) from None
        raise UserError(f"training setting {name} of {algorithm.name}: {first['msg'].lower()}") from None


def complete(algorithm: AlgorithmDeclaration, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Complete an objective's settings by the algorithm's and the defaults; β may stay a multiple of its bound.

    Raises `UserError` for an unknown objective, an unknown setting, and a value that is not allowed.
    """
    if algorithm.objective not in OBJECTIVES:
        raise unknown(f"objective in algorithm {algorithm.name}:", algorithm.objective, OBJECTIVES)
    objective = OBJECTIVES[algorithm.objective]
    values = {**objective.settings, **algorithm.settings, **settings}
    if odd := set(values) - set(objective.settings):
        raise unknown(f"setting of {algorithm.name}", min(odd), objective.settings)
    for name, allowed in objective.allowed.items():
        value = values[name]
        bounded = name == "beta" and objective.bound is not None
        measured = name == "reject_mass"
        scaled = name == "temperature" and "advantage" in objective.inputs.values()
        if value in allowed:
            values[name] = float(value) if isinstance(allowed, Interval) else value  # people write 2 for 2.0
        elif (
            not (bounded and _multiple(value) is not None)
            and not (measured and value == MEASURED)
            and not (scaled and _multiple(value, "sd"))
        ):
            hint = ', or a multiple of its bound such as "1.05x"' if bounded else ""
            hint = ', or a multiple of the advantages\' deviation such as "1sd"' if scaled else hint
            hint = f', or "{MEASURED}"' if measured else hint
            raise UserError(f"{algorithm.name}.{name} is {allowed}{hint}, not {value!r}")
    return values


def settle(algorithm: AlgorithmDeclaration, settings: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    """Complete an objective's settings for a dataset.

    β given as a multiple of its bound (`"1.05x"`) becomes a number, and a temperature given in deviations of the
    dataset's advantages (`"1sd"`), whose scale is the rewards'.

    Raises `UserError` as `complete` does, and for a bound that no β meets.
    """
    values = complete(algorithm, settings)
    if values.get("reject_mass") == MEASURED:
        mass = reject_mass(values, dataset, algorithm.rows)
        if not mass:
            raise UserError(
                f"{algorithm.name}.reject_mass: nothing is rejected in {dataset.metadata.id}: give a number"
            )
        values["reject_mass"] = mass
    deviations = _multiple(values.get("temperature"), "sd")
    if deviations is not None:
        values["temperature"] = deviations * _deviation(algorithm, dataset)
    factor = _multiple(values.get("beta"))
    if factor is not None:
        # A floor bounds the loss at every β; a multiple of that bound, zero, would switch the divergence off.
        bound = beta_bound(algorithm, {**values, "floor": 0.0} if "floor" in values else values, dataset)
        if bound is None or math.isinf(bound):
            why = (
                "its reference produces no rejects"
                if is_forward(values)
                else f"the {values['divergence']} divergence does not hold rejects back (give β a number to try)"
            )
            raise UserError(f"{algorithm.name} is unbounded on {dataset.metadata.id} at every β: {why}")
        values["beta"] = factor * bound
    return values


def _deviation(algorithm: AlgorithmDeclaration, dataset: Dataset) -> float:
    """Return the deviation of the dataset's advantages; `UserError` if its scores are none or all alike."""
    meta = dataset.metadata
    deviation = float(np.nanstd(columns.vector(dataset.table, "score"))) if meta.score.name == "advantage" else 0.0
    if not deviation > 0:
        raise UserError(
            f"{algorithm.name}.temperature is given in deviations of the advantages, and {meta.id} is scored by "
            f"{meta.score.name}{' that never differs' if meta.score.name == 'advantage' else ''}: give a number, or "
            "build a dataset with --label advantage"
        )
    return deviation


def _multiple(value: Any, unit: str = "x") -> float | None:
    """Return the 1.05 of `"1.05x"`, None for anything else."""
    if not isinstance(value, str) or not value.endswith(unit):
        return None
    try:
        factor = float(value.removesuffix(unit))
    except ValueError:
        return None
    return factor if 0 <= factor < math.inf else None


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
