"""Train all seeds and settings of one algorithm on one dataset as a single stacked batch; stop and resume exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pmpo_offline.data import Dataset
from pmpo_offline.declarations import OBJECTIVES, catalog
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.training.bound import beta_bound
from pmpo_offline.training.config import hyperparameters, settle, warn_below
from pmpo_offline.training.control.batches import Sampler
from pmpo_offline.training.control.fitting import fit
from pmpo_offline.training.control.reference import CLONE, fresh_policy, reference_policy, repeat
from pmpo_offline.training.critics.registry import critic_settings
from pmpo_offline.training.shuffle import check_control, expected


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
) -> Trained:
    """Train every combination of `settings` and `seeds`, stacked.

    Args:
        dataset: labelled transitions.
        algorithm: a declared algorithm, or its name in the family of the dataset's task.
        seeds: one training run each.
        settings: the objective's hyperparameters, over those that the algorithm declares; they may differ in numbers.
        checkpoint: where to leave checkpoints; a run that finds one goes on from it and ends bit for bit the same.
        references: a folder of clones that algorithms share, with checkpoints of its own; without it they are trained
            again. `bc` itself is such a clone.
        shuffle_labels: permute the labels among all units, each seed its own way.
        overrides: training hyperparameters in place of the declared ones.
        device: a torch device; default CUDA if there is one.

    Raises:
        UserError: unknown or malformed hyperparameters, labels that leave the algorithm nothing to learn from, or
            labels to shuffle that are not all that it learns from.
    """
    if dataset.metadata.kind == "responses":
        raise UserError(f"dataset {dataset.metadata.id} holds responses: train a language model with train_language")
    family = catalog.family(dataset.metadata.task)
    if isinstance(algorithm, str):
        algorithm = catalog.algorithm(algorithm, family)
    hyper = hyperparameters(algorithm, overrides or {})
    critic_settings(algorithm)  # a mistake in them is said before anything is done
    labelled = expected(dataset) if shuffle_labels else dataset
    complete = [settle(algorithm, each, labelled) for each in settings]
    bounds = [beta_bound(algorithm, each, labelled) for each in complete]
    if shuffle_labels:
        check_control(algorithm, responses=False)
    warn_below(algorithm, complete, bounds)
    runs = [(each, seed) for each in complete for seed in seeds]
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    clone = catalog.algorithm(CLONE, family)
    is_clone = algorithm == clone
    reference = None
    compared = any(each.get("divergence", "behavior") != "behavior" for each in complete)
    if is_clone or compared or algorithm.start == "reference":
        same_network = {"components": hyper.components, "hidden": hyper.hidden, "refresh": 0.0}
        clones = reference_policy(dataset, clone, {**(overrides or {}), **same_network}, seeds, references, place)
        reference = repeat(clones, len(complete))
        if is_clone:
            return Trained(reference, runs, bounds, {})
    run_seeds = [seed for _, seed in runs]
    sampler = Sampler(dataset, algorithm.rows, run_seeds, shuffle=shuffle_labels, device=place, top=algorithm.top)
    if "label" in OBJECTIVES[algorithm.objective].inputs.values() and not sampler.rows.label.any():
        raise UserError(f"{algorithm.name} learns from labelled rows and {dataset.metadata.id} has none")
    policy = fresh_policy(sampler, hyper, run_seeds).to(place)
    if reference is not None and algorithm.start == "reference":
        policy.load_state_dict(reference.state_dict())

    metrics = fit(policy, reference, sampler, algorithm, complete, len(seeds), hyper, checkpoint)
    return Trained(policy.eval(), runs, bounds, metrics)
