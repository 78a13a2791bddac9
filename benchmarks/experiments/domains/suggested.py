"""α and β that `training.suggestion` derives from labels, for domains that it was not made on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.experiments import control_rows
from benchmarks.experiments.labellings import Labelled
from pmpo_offline.data import Dataset, columns
from pmpo_offline.training import config
from pmpo_offline.training.suggestion import suggest

FIXED, SUGGESTED = "α ½, 1.05 × bound", "suggested"


def settings_of(domain: str, labels: Labelled, cell: Mapping[str, Any], seed: int, name: str) -> dict[str, float]:
    """Return the fixed or the suggested settings of PMPO for a cell's labels; the fixed where none is suggested."""
    fixed = {"alpha": 0.5, "multiple": 1.05}
    if name == FIXED:
        return fixed
    before = control_rows.labelled(domain, seed, {**cell, "share": None})
    algorithm = control_rows.ARMS["PMPO AR"].declared(control_rows.DOMAINS[domain].family)
    rows = control_rows.DOMAINS[domain].training["batch"]
    dataset = described(domain, labels, before, cell["flips"])
    settings = config.settle(algorithm, {"alpha": 0.5, "beta": 1.0}, dataset, rows)
    return suggest(algorithm, settings, dataset, rows) or fixed


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
