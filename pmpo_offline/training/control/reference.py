"""The reference policy: a clone of the recorded behaviour, one a seed, trained once and shared by every algorithm."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from pmpo_offline.data import Dataset
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.hashing import hash_bytes
from pmpo_offline.training import checkpoint
from pmpo_offline.training.config import TrainingSettings, hyperparameters, settle
from pmpo_offline.training.control.batches import Sampler
from pmpo_offline.training.control.fitting import fit

CLONE = "bc"
"""The algorithm that makes the reference, in every family."""


def fresh_policy(sampler: Sampler, hyper: TrainingSettings, seeds: Sequence[int]) -> MixturePolicy:
    """Return untrained policies that normalise by the data's own statistics."""
    observation = sampler.rows.observation
    return MixturePolicy(
        seeds,
        observation.mean(0).cpu(),
        observation.std(0, correction=min(1, len(observation) - 1)).cpu(),  # of one row: zero
        sampler.rows.action.shape[1],
        components=hyper.components,
        hidden=hyper.hidden,
    )


def reference_policy(
    dataset: Dataset,
    clone: AlgorithmDeclaration,
    overrides: Mapping[str, Any],
    seeds: Sequence[int],
    folder: Path | None,
    device: torch.device,
) -> MixturePolicy:
    """Return the behaviour's clone for each seed; labels do not enter, so every labelling of the data shares it."""
    hyper = hyperparameters(clone, overrides)
    table = dataset.table.select(["observation", "action"])
    rows = (chunk.values.buffers()[1] for column in table.columns for chunk in column.chunks)
    digest = hash_bytes([json.dumps([hyper.model_dump(), list(seeds)]).encode(), *rows])
    path = folder / f"clone-{digest[:16]}.safetensors" if folder else None
    sampler = Sampler(dataset, "all", seeds, shuffle=False, device=device)
    policy = fresh_policy(sampler, hyper, seeds).to(device)
    if path and path.exists():
        policy.load_state_dict(checkpoint.load(path)[0])
        return policy.eval()

    partial = path.with_suffix(".partial") if path else None
    with progress.stage(lambda _: "clone the behaviour"):
        fit(policy, None, sampler, clone, [settle(clone, {}, dataset)], len(seeds), hyper, partial)
    if path and partial:
        checkpoint.save(path, policy.state_dict())
        partial.unlink(missing_ok=True)
    return policy.eval()


def repeat(policy: MixturePolicy, times: int) -> MixturePolicy:
    """Return the same runs `times` over: one block of seeds a setting."""
    copy = deepcopy(policy)
    copy.runs = policy.runs * times
    for parameter in copy.parameters():
        parameter.data = parameter.data.repeat(times, *[1] * (parameter.dim() - 1))
    return copy.requires_grad_(False)
