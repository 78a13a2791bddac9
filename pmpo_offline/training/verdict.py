"""On which side of its bounds a β is, and what follows: the part of the doctor that knows of stability."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from pmpo_offline.data import Dataset, columns
from pmpo_offline.declarations import OBJECTIVES
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.objectives import Words, stability
from pmpo_offline.training.bound import beta_bound, reject_mass
from pmpo_offline.training.config import MEASURED, settle

MARGIN = 1.05
"""β over its bound that is suggested: the nearer, the less a reject is imitated (benchmarks/results/README.md)."""
EDGE = 0.02
"""Within this share of the bound, the noise of minibatches decides what becomes of a run."""


def stability_of(dataset: Dataset, algorithm: AlgorithmDeclaration, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the bounds and what β is to them."""
    if asked["reject_mass"] == MEASURED and not reject_mass(asked, dataset, algorithm.rows):
        asked = {**asked, "reject_mass": 1.0}  # without rejects in a batch there is nothing to divide by
    # With a number for β, settling only measures what the caller asked to be measured.
    values = settle(algorithm, {**asked, "beta": 1.0}, dataset)
    allowed = OBJECTIVES[algorithm.objective].allowed["normalize"]
    ways = tuple(allowed) if isinstance(allowed, Words) else ()
    bounds = {way: beta_bound(algorithm, {**values, "normalize": way}, dataset) or 0.0 for way in ways}
    bound = bounds[values["normalize"]]
    if isinstance(asked["beta"], str):
        values["beta"] = None if math.isinf(bound) else settle(algorithm, asked, dataset)["beta"]
    else:
        values["beta"] = asked["beta"]
    factor = values["beta"] / bound if 0 < bound < math.inf and values["beta"] is not None else None
    verdict = "bounded"
    if factor is not None and bound:
        verdict = "at the edge" if abs(factor - 1) <= EDGE else "bounded" if factor > 1 else "unbounded"
    elif bound:
        verdict = "unbounded"
    return {
        "settings": values,
        "verdict": verdict,
        "bound": bound,
        "bounds": bounds,
        "factor": factor,
        "suggested_beta": MARGIN * bound if 0 < bound < math.inf else None,
        "gaussian_bound": _gaussian_bound(dataset, values) if 0 < bound < math.inf else None,
        "noise_bound": _noise_bound(dataset, values) if 0 < bound < math.inf else None,
    }


def _gaussian_bound(dataset: Dataset, values: Mapping[str, Any]) -> float | None:
    """Return the bound by the moments of the actions, None where the policy has contexts to tell apart."""
    if dataset.has_contexts:
        return None
    action, label = torch.tensor(columns.matrix(dataset.table, "action")), columns.labels(dataset.table)
    accepted, rejected = (action[torch.tensor(np.flatnonzero(np.sign(label) == sign))] for sign in (1, -1))
    reference = torch.cat([accepted, rejected]) if values["over"] == "labelled" else action
    bound = stability.gaussian_beta_min(
        accepted, rejected, reference, alpha=values["alpha"], normalize=values["normalize"]
    )
    return bound * float(values["reject_mass"])


def _noise_bound(dataset: Dataset, values: Mapping[str, Any]) -> float | None:
    """Return the bound that flipped labels relax; None where none are, or where single rows can be told apart."""
    meta = dataset.metadata
    if not meta.noise or dataset.has_contexts or values["over"] == "labelled":
        return None
    accepts = (columns.labels(dataset.table) > 0).sum()
    # A row an episode, or a label a row: what was dropped is counted in rows either way.
    bound = stability.beta_min(
        values["alpha"],
        meta.reject_mass,
        values["normalize"],
        meta.reject_share,
        noise=min(meta.noise, 0.5),
        accept_mass=float(accepts + meta.imbalance.dropped_accepted) / len(dataset),
    )
    return bound * float(values["reject_mass"])


def advice(found: Mapping[str, Any], accepted: int, rejected: int) -> list[str]:
    """Return what follows from the bounds, a sentence each."""
    values, bound, factor, gaussian = (found[name] for name in ("settings", "bound", "factor", "gaussian_bound"))
    said = []
    if values["floor"]:
        said.append("with a floor under the rejects every β is bounded")
        if rejected and values["beta"] == 0:
            said.append("at β = 0 nothing keeps the policy near its reference while it leaves the rejects")
    elif not bound:
        said.append("no reject is pushed away: every β is bounded")
    elif math.isinf(bound):
        said.append(f"no β bounds the loss: the {values['divergence']} divergence does not hold rejects back")
    elif found["verdict"] == "unbounded":
        said.append(
            "below its bound the loss has no minimum: rejects fall without rest, and often the policy with them"
        )
    elif found["verdict"] == "at the edge":
        said.append(
            "at the bound the optimal policy gives rejects nothing, and noise decides whether they come to rest"
        )
    elif factor > 1.3:
        said.append(
            f"a reject still weighs {1 - 1 / factor:.2f} of an unlabelled row: labels matter more near the bound"
        )
    if 0 < bound < math.inf and values["divergence"] != "behavior":
        said.append(
            "a network that tells single rows apart needs more than this bound, see benchmarks/results/stability"
        )
    if found["noise_bound"] is not None:
        said.append(
            f"labels are flipped at a known rate: where outcomes come with both, β ≥ {found['noise_bound']:.4g} will do"
        )
    if gaussian is not None:
        side = "bounded" if values["beta"] is not None and values["beta"] > gaussian else "unbounded"
        said.append(
            f"the observation never changes: one diagonal Gaussian needs β > {gaussian:.4g} and is {side} here; "
            "the bound is for policies that can single outcomes out, such as mixtures"
        )
    if rejected and not accepted and values["alpha"] not in (0, 1):
        said.append("without accepts α only scales the rejects")
    return said
