"""α and β that `training.suggestion` derives from labels, for domains that it was not made on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from benchmarks.experiments import control_rows
from benchmarks.experiments.labellings import Labelled
from pmpo_offline.data import Dataset, columns
from pmpo_offline.training import Setup
from pmpo_offline.training.suggestion import MARGIN, suggest, suggest_beta

FIXED, SUGGESTED = "α ½, 1.05 × bound", "suggested"
"""The default, and α by the labels with β a little above its bound."""
BELOW, BOTH = "α ½, suggested β", "suggested α and β"
"""β as `doctor` suggests it, below the bound where states are seen."""


def settings_of(domain: str, cell: Mapping[str, Any], seed: int, name: str) -> dict[str, float]:
    """Return the settings of PMPO of this name for a cell's labels; the fixed where none is suggested."""
    fixed = {"alpha": 0.5, "multiple": MARGIN}
    if name == FIXED:
        return fixed
    algorithm = control_rows.ARMS["PMPO AR"].declared(control_rows.DOMAINS[domain].family)
    rows = control_rows.DOMAINS[domain].training["batch"]
    dataset = _described(domain, seed, json.dumps(cell))
    setup = Setup(algorithm, {"alpha": 0.5, "beta": 1.0}, dataset, rows).settled()
    below = {"alpha": 0.5, "beta": suggest_beta(setup) or 0.0}
    if name == BELOW:
        return below
    found = suggest(setup)
    if name == BOTH:
        return found or below
    return fixed if found is None else {"alpha": found["alpha"], "multiple": MARGIN}


@lru_cache(maxsize=1)
def _described(domain: str, seed: int, text: str) -> Dataset:
    """Return the dataset with the labels of a cell, which is given as JSON, so that its settings share a classifier."""
    cell = json.loads(text)
    labels, before = (control_rows.labelled(domain, seed, each) for each in (cell, {**cell, "share": None}))
    return described(domain, labels, before, cell["flips"])


def described(domain: str, labels: Labelled, before: Labelled, flips: float) -> Dataset:
    """Return the dataset with these labels, and the metadata that a dataset with them has.

    Args:
        domain: whose dataset it is.
        labels: its labels now.
        before: as they were before some were dropped for a balance.
        flips: the rate at which they were flipped.
    """
    dataset = control_rows.dataset(domain)
    now, earlier = (each.label.numpy().astype(np.int8) for each in (labels, before))
    first = control_rows.first_rows(domain)
    counts = {name: int((now[first] == sign).sum()) for name, sign in _SIGNS.items()}
    dropped = {f"dropped_{name}": int((earlier[first] == sign).sum()) - counts[name] for name, sign in _DROPPED.items()}
    changed: dict[str, Any] = {
        "noise": flips,
        "counts": dataset.metadata.counts.model_copy(update=counts),
        "imbalance": dataset.metadata.imbalance.model_copy(update=dropped),
        "reject_mass": float((earlier < 0).mean()),
        "labelled_reject_mass": float((now < 0).mean()),
        "reject_share": labels.masses["reject_share"],
    }
    return replace(
        dataset, metadata=dataset.metadata.model_copy(update=changed), table=columns.replace(dataset.table, label=now)
    )


_SIGNS = {"accepted": 1, "rejected": -1, "unlabelled": 0}
_DROPPED = {"accepted": 1, "rejected": -1}
