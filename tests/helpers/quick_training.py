"""Trainings of a few updates on the small stacking dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pmpo_offline.data import Dataset
from pmpo_offline.declarations import catalog
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.policies import MixturePolicy
from pmpo_offline.training import Trained, train

QUICK: dict[str, Any] = {"updates": 12, "batch": 32, "hidden": [16], "components": 3}
LEARNERS = ["pmpo", "dpo", "kto", "mpo", "bco", "dro", "conditional"]


def weights(policy: MixturePolicy, run: int | slice = slice(None)) -> torch.Tensor:
    """All parameters of some runs, side by side."""
    return torch.cat([weight[run].flatten() for weight in policy.parameters()])


def quick(
    dataset: Dataset, name: str, references: Path, seeds: Sequence[int], settings: Sequence[Mapping[str, Any]] = ({},)
) -> Trained:
    """Train on the processor, from clones in the folder `references`."""
    return train(dataset, name, seeds=seeds, settings=settings, overrides=QUICK, references=references, device="cpu")


def declared(**changes: Any) -> AlgorithmDeclaration:
    """Return PMPO as declared for stacking, with changes."""
    return AlgorithmDeclaration.model_validate(
        {**catalog.algorithm("pmpo", "rgb-stacking").model_dump(), "name": "own", **changes}
    )
