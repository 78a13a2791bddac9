"""The least stable β of an objective on a dataset: what `objectives.stability` says of these labels and settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pmpo_offline.catalog import AlgorithmDeclaration
from pmpo_offline.data import Dataset
from pmpo_offline.objectives import OBJECTIVES


def beta_bound(algorithm: AlgorithmDeclaration, settings: Mapping[str, Any], dataset: Dataset) -> float | None:
    """Return the least β at which these settings are bounded on this dataset, None if the objective has no bound.

    Args:
        algorithm: names the objective.
        settings: complete (`training.settings.complete`).
        dataset: whose labels are counted.
    """
    bound = OBJECTIVES[algorithm.objective].bound
    if bound is None:
        return None
    if settings["floor"]:
        return 0.0  # the reject term has a least value of its own
    least = bound(
        settings["alpha"],
        reject_mass=reject_mass(settings, dataset),
        normalize=settings["normalize"],
        reject_share=dataset.metadata.reject_share,
    )
    if not is_forward(settings):
        # The others stay finite where the policy gives a rejected outcome no probability: they hold nothing back.
        return math.inf if least else 0.0
    return least * float(settings["reject_mass"])


def reject_mass(settings: Mapping[str, Any], dataset: Dataset) -> float:
    """Return P_r, the rejects' share of the rows that the divergence runs over.

    It is taken before balancing where the policy must treat the rejects whose labels were dropped like the labelled
    ones, because it sees no context to tell them apart by. Elsewhere every state was recorded once and a network can
    tell them apart: then only the labelled ones count, and at the smaller bound it collapses
    (benchmarks/results/README.md).
    """
    metadata = dataset.metadata
    if settings["over"] == "labelled":
        return metadata.reject_share
    return metadata.labelled_reject_mass if dataset.has_contexts else metadata.reject_mass


def is_forward(settings: Mapping[str, Any]) -> bool:
    """Return whether the divergence is KL(reference || policy), which at order 1 the others are too."""
    kind, order = settings["divergence"], settings["order"]
    return kind in ("behavior", "forward") or (kind != "reverse" and order == 1)
