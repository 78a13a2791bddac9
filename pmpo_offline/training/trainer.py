"""Train all seeds and settings of one algorithm on one dataset as a single stacked batch; stop and resume exactly."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from pmpo_offline import catalog
from pmpo_offline.catalog import AlgorithmDeclaration
from pmpo_offline.data import Dataset, Metadata
from pmpo_offline.errors import UserError, unknown
from pmpo_offline.objectives import OBJECTIVES
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.training import checkpoint as checkpoints
from pmpo_offline.training.batches import Sampler, inputs

Progress = Callable[[str, int, int], None]


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


@dataclass(frozen=True)
class Trained:
    """A cell's policies and what is known of them."""

    policy: MixturePolicy
    """Stacked: for each setting, for each seed."""
    runs: list[tuple[dict[str, Any], int]]
    """Settings and seed of every run, in the policy's order."""
    bounds: list[float | None]
    """The least stable β of each setting on this dataset; None where the objective has no bound."""
    metrics: dict[str, Tensor]
    """The objective's metrics on the last minibatch, (R,) each, and its `loss`."""


def beta_bound(algorithm: AlgorithmDeclaration, settings: Mapping[str, Any], metadata: Metadata) -> float | None:
    """Return the least β at which these settings are bounded on this dataset, None if the objective has no bound."""
    bound = OBJECTIVES[algorithm.objective].bound
    if bound is None:
        return None
    return bound(
        settings["alpha"],
        reject_mass=metadata.reject_mass,
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
    beta = complete.get("beta")
    if isinstance(beta, str):
        bound = beta_bound(algorithm, complete, metadata)
        try:
            factor = float(beta.removesuffix("x"))
        except ValueError:
            factor = math.nan
        if bound is None or not beta.endswith("x") or not factor >= 0:
            raise UserError(f'{algorithm.name}.beta is a number, or for pmpo a multiple of its bound such as "1.05x", not {beta!r}')
        if math.isinf(bound):
            raise UserError(f"{algorithm.name} is unbounded on {metadata.id} at every β: its reference produces no rejects")
        complete["beta"] = factor * bound
    return complete


def train(
    dataset: Dataset,
    algorithm: AlgorithmDeclaration | str,
    *,
    seeds: Sequence[int] = (0,),
    settings: Sequence[Mapping[str, Any]] = ({},),
    checkpoint: Path | None = None,
    references: Path | None = None,
    shuffle_labels: bool = False,
    overrides: Mapping[str, Any] | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train every combination of `settings` and `seeds`, stacked.

    Args:
        dataset: labelled transitions.
        algorithm: a declared algorithm, or its name.
        seeds: one training run each.
        settings: the objective's hyperparameters, over those that the algorithm declares; they may differ in numbers.
        checkpoint: where to leave checkpoints; a run that finds one goes on from it and ends bit for bit the same.
        references: a folder of reference policies to share between algorithms; without it they are trained again.
        shuffle_labels: permute the labels among the labelled units, each seed its own way.
        overrides: training hyperparameters in place of the declared ones.
        device: a torch device; default CUDA if there is one.
        progress: told what is going on.

    Raises:
        UserError: unknown or malformed hyperparameters, or labels that leave the algorithm nothing to learn from.
    """
    if isinstance(algorithm, str):
        algorithm = catalog.algorithm(algorithm)
    hyper = _hyperparameters(algorithm, overrides or {})
    complete = [settle(algorithm, each, dataset.metadata) for each in settings]
    bounds = [beta_bound(algorithm, each, dataset.metadata) for each in complete]
    _warn_below(algorithm, complete, bounds)
    runs = [(each, seed) for each in complete for seed in seeds]
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    needs_reference = algorithm.start == "reference"
    reference = _reference(dataset, hyper, seeds, references, place, progress) if needs_reference else None
    if reference is not None:
        reference = _repeat(reference, len(complete))
    run_seeds = [seed for _, seed in runs]
    sampler = Sampler(dataset, algorithm.rows, run_seeds, shuffle=shuffle_labels, device=place)
    policy = _fresh_policy(sampler, hyper, run_seeds).to(place)
    if reference is not None:
        policy.load_state_dict(reference.state_dict())

    metrics = _fit(policy, reference, sampler, algorithm, complete, len(seeds), hyper, checkpoint, progress)
    return Trained(policy.eval(), runs, bounds, metrics)


def _fit(
    policy: MixturePolicy,
    reference: MixturePolicy | None,
    sampler: Sampler,
    algorithm: AlgorithmDeclaration,
    settings: Sequence[Mapping[str, Any]],
    seeds: int,
    hyper: TrainingSettings,
    path: Path | None,
    progress: Progress | None,
) -> dict[str, Tensor]:
    objective = OBJECTIVES[algorithm.objective]
    stacked = _stack(settings, seeds, sampler.rows.action.device)
    weights = list(policy.parameters())
    average = [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.AdamW(weights, lr=hyper.learning_rate, weight_decay=hyper.weight_decay, fused=True)
    start = _resume(path, weights, average, optimizer) if path and path.exists() else 0
    metrics: dict[str, Tensor] = {}
    for step in range(start, hyper.updates):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, hyper)
        batch = sampler.batch(step, hyper.batch, policy, reference)
        loss, metrics = objective(inputs(batch, objective.inputs), **stacked)
        metrics = metrics | {"loss": loss.detach()}
        optimizer.zero_grad()
        loss.sum().backward()  # type: ignore[no-untyped-call]
        _clip(weights, hyper.clip)
        optimizer.step()
        # Early averages forget fast, or the random start would linger in them.
        torch._foreach_lerp_(average, weights, 1 - min(hyper.averaging, (step + 1) / (step + 10)))
        done = step + 1
        if path and done % hyper.checkpoint_every == 0 and done < hyper.updates:
            _save(path, weights, average, optimizer, done)
        if progress and (done % 25 == 0 or done == hyper.updates):
            progress(f"train {algorithm.name}", done, hyper.updates)
    with torch.no_grad():
        torch._foreach_copy_(weights, average)
    return metrics


def learning_rate(step: int, hyper: TrainingSettings) -> float:
    """One cycle: linear to the peak over the first tenth of the updates, then half a cosine down to zero."""
    rise = max(1, hyper.updates // 10)
    if step < rise:
        return hyper.learning_rate * (step + 1) / rise
    return hyper.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, hyper.updates - rise)))


def _clip(weights: Sequence[Tensor], limit: float) -> None:
    """Scale each run's gradient to at most `limit`; runs do not see one another."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    norm = torch.stack([gradient.square().flatten(1).sum(1) for gradient in gradients]).sum(0).sqrt()
    scale = (limit / (norm + 1e-6)).clamp(max=1)
    torch._foreach_mul_(gradients, [scale.view(-1, 1, 1)] * len(gradients))


def _hyperparameters(algorithm: AlgorithmDeclaration, overrides: Mapping[str, Any]) -> TrainingSettings:
    try:
        return TrainingSettings.model_validate({**algorithm.training, **overrides})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise unknown(f"training setting of {algorithm.name}", name, TrainingSettings.model_fields) from None
        raise UserError(f"training setting {name} of {algorithm.name}: {first['msg'].lower()}") from None


def _stack(settings: Sequence[Mapping[str, Any]], seeds: int, device: torch.device) -> dict[str, Any]:
    """Turn settings that differ in numbers into (R, 1) tensors; equal ones stay as they are."""
    stacked: dict[str, Any] = {}
    for name, first in settings[0].items():
        values = [each[name] for each in settings]
        if all(value == first for value in values):
            stacked[name] = first
        else:
            stacked[name] = torch.tensor(values, device=device).repeat_interleave(seeds).unsqueeze(1)
    return stacked


def _warn_below(
    algorithm: AlgorithmDeclaration, settings: Sequence[Mapping[str, Any]], bounds: Sequence[float | None]
) -> None:
    below = [(each["beta"], bound) for each, bound in zip(settings, bounds, strict=True) if bound and each["beta"] < bound]
    if below:
        listed = ", ".join(f"β = {beta:g} < {bound:.3g}" for beta, bound in below)
        warnings.warn(
            f"{algorithm.name}: {listed}: below its bound the objective has no minimum and the policy may collapse",
            stacklevel=3,
        )


def _fresh_policy(sampler: Sampler, hyper: TrainingSettings, seeds: Sequence[int]) -> MixturePolicy:
    observation = sampler.rows.observation
    return MixturePolicy(
        seeds,
        observation.mean(0).cpu(),
        observation.std(0).cpu(),
        sampler.rows.action.shape[1],
        components=hyper.components,
        hidden=hyper.hidden,
    )


def _reference(
    dataset: Dataset,
    hyper: TrainingSettings,
    seeds: Sequence[int],
    folder: Path | None,
    device: torch.device,
    progress: Progress | None,
) -> MixturePolicy:
    """Return the behaviour's clone for each seed; labels do not enter, so every labelling of the data shares it."""
    clone = catalog.algorithm("bc")
    hyper = _hyperparameters(clone, {"components": hyper.components, "hidden": hyper.hidden})
    table = dataset.table.select(["observation", "action"])
    digest = hashlib.sha256(json.dumps([hyper.model_dump(), list(seeds)]).encode())
    for column in table.columns:
        for chunk in column.chunks:
            digest.update(chunk.values.buffers()[1])
    path = folder / f"clone-{digest.hexdigest()[:16]}.safetensors" if folder else None
    sampler = Sampler(dataset, "all", seeds, shuffle=False, device=device)
    policy = _fresh_policy(sampler, hyper, seeds).to(device)
    if path and path.exists():
        policy.load_state_dict(checkpoints.load(path)[0])
        return policy.eval()

    def clone_progress(stage: str, done: int, total: int) -> None:
        if progress:
            progress("clone the behaviour", done, total)

    partial = path.with_suffix(".partial") if path else None
    _fit(policy, None, sampler, clone, [settle(clone, {}, dataset.metadata)], len(seeds), hyper, partial, clone_progress)
    if path and partial:
        checkpoints.save(path, policy.state_dict())
        partial.unlink(missing_ok=True)
    return policy.eval()


def _repeat(policy: MixturePolicy, times: int) -> MixturePolicy:
    """Return the same runs `times` over: one block of seeds a setting."""
    copy = deepcopy(policy)
    copy.runs = policy.runs * times
    for parameter in copy.parameters():
        parameter.data = parameter.data.repeat(times, *[1] * (parameter.dim() - 1))
    return copy.requires_grad_(False)


def _save(path: Path, weights: Sequence[Tensor], average: Sequence[Tensor], optimizer: torch.optim.Optimizer, step: int) -> None:
    tensors: dict[str, Tensor] = {}
    for i, (weight, mean) in enumerate(zip(weights, average, strict=True)):
        moments = optimizer.state[weight]
        tensors |= {f"weight.{i}": weight, f"average.{i}": mean}
        tensors |= {f"first.{i}": moments["exp_avg"], f"second.{i}": moments["exp_avg_sq"]}
    checkpoints.save(path, tensors, step=str(step))


def _resume(path: Path, weights: Sequence[Tensor], average: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> int:
    tensors, facts = checkpoints.load(path)
    step = int(facts["step"])
    with torch.no_grad():
        for i, (weight, mean) in enumerate(zip(weights, average, strict=True)):
            weight.copy_(tensors[f"weight.{i}"])
            mean.copy_(tensors[f"average.{i}"])
            optimizer.state[weight] = {
                "step": torch.tensor(float(step)),
                "exp_avg": tensors[f"first.{i}"].to(weight.device),
                "exp_avg_sq": tensors[f"second.{i}"].to(weight.device),
            }
    return step
