"""The least stable β of an objective on a dataset: what `objectives.stability` says of these labels and settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pmpo_offline.data import Dataset
from pmpo_offline.declarations import OBJECTIVES
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.runtime.errors import UserError


def beta_bound(algorithm: AlgorithmDeclaration, settings: Mapping[str, Any], dataset: Dataset) -> float | None:
    """Return the least β at which these settings are bounded on this dataset, None if the objective has no bound.

    Args:
        algorithm: names the objective.
        settings: complete (`training.settings.complete`).
        dataset: whose labels are counted.

    Raises:
        UserError: `rows` of the algorithm are chosen by score, whose labels are not counted.
    """
    bound = OBJECTIVES[algorithm.objective].bound
    if bound is None:
        return None
    if algorithm.rows == "top":
        raise UserError(f'{algorithm.name} has a bound on β, which is not known for rows = "top": set rows = "all"')
    if settings["floor"]:
        return 0.0  # the reject term has a least value of its own
    least = bound(
        settings["alpha"],
        reject_mass=reject_mass(settings, dataset, algorithm.rows),
        normalize=settings["normalize"],
        reject_share=reject_share(dataset, algorithm.rows),
    )
    if not is_forward(settings):
        # The others stay finite where the policy gives a rejected outcome no probability: they hold nothing back.
        return math.inf if least else 0.0
    return least * float(settings["reject_mass"])


def reject_share(dataset: Dataset, rows: str = "all") -> float:
    """Return w_r, the rejects' share of the labelled rows in a batch."""
    share = dataset.metadata.reject_share
    if rows == "accepted":
        return 0.0
    return 0.5 if rows == "balanced" and 0 < share < 1 else share


def reject_mass(settings: Mapping[str, Any], dataset: Dataset, rows: str = "all") -> float:
    """Return P_r, the rejects' share of the rows that the divergence runs over.

    It is taken before balancing where the policy must treat the rejects whose labels were dropped like the labelled
    ones, because it sees no context to tell them apart by. Elsewhere every state was recorded once and a network can
    tell them apart: then only the labelled ones count, and at the smaller bound it collapses
    (benchmarks/results/README.md).

    Batches of accepted or of balanced rows hold labelled rows alone, in shares of their own: so does the divergence.
    """
    metadata = dataset.metadata
    if settings["over"] == "labelled" or rows in ("accepted", "balanced"):
        return reject_share(dataset, rows)
    return metadata.labelled_reject_mass if dataset.has_contexts else metadata.reject_mass


def is_forward(settings: Mapping[str, Any]) -> bool:
    """Return whether the divergence is KL(reference || policy), which at order 1 the others are too."""
    kind, order = settings["divergence"], settings["order"]
    return kind in ("behavior", "forward") or (kind != "reverse" and order == 1)
