"""The control: labels that were permuted among all units, so that nothing is left to learn from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pmpo_offline.catalog import AlgorithmDeclaration
from pmpo_offline.data import Dataset, Metadata, Rows
from pmpo_offline.errors import UserError
from pmpo_offline.objectives import OBJECTIVES

_FEW = 0.001  # of the units: whether as few as that have a label, say scores that equal the threshold, tells nothing
_SCORES = {"advantage", "group_score", "policy_value"}  # inputs that permuted labels leave as they were


def shuffled(rows: Rows, unit: str, seed: int) -> Rows:
    """Permute accept, reject and no label among all units (steps or episodes; candidates among themselves).

    Were the unlabelled ones to keep their place, it would remain known who has a label; and where a share was made by
    dropping the labels of accepts, having one says reject.
    """
    rng = np.random.default_rng([seed, 7])

    def permute(label: Tensor) -> Tensor:
        return label[torch.from_numpy(rng.permutation(len(label))).to(label.device)]

    if unit == "episode":
        first = torch.ones_like(rows.episode, dtype=torch.bool)
        first[1:] = rows.episode[1:] != rows.episode[:-1]
        label = permute(rows.label[first])[rows.episode]
    else:
        label = permute(rows.label)
    candidates = rows.candidates
    if candidates is not None:
        shape = candidates.label.shape
        candidates = replace(candidates, label=permute(candidates.label.flatten()).view(shape))
    return replace(rows, label=label, candidates=candidates)


def expected(dataset: Dataset) -> Dataset:
    """Return a dataset whose bounds on β are those of its shuffled labels, on average over permutations.

    Only labels of episodes change them: they move between long and short ones, so that afterwards as many of the steps
    are rejected as of the episodes. Where failures last longer, the bound of the permuted labels is the higher one, and
    a control at the other collapses, whatever its labels say.
    """
    counts = dataset.metadata.counts
    if dataset.metadata.unit != "episode":
        return dataset
    masses = {
        "labelled_reject_mass": counts.rejected / max(1, counts.episodes),
        "reject_share": counts.rejected / max(1, counts.accepted + counts.rejected),
    }
    return replace(dataset, metadata=dataset.metadata.model_copy(update=masses))


def identified(metadata: Metadata, rows: str) -> bool | str:
    """Return what the keys of results and runs say of a control.

    "all units" where units are unlabelled: keys said true when these kept their place, and such results are no longer
    those of this control. Where all are labelled, nothing has changed.

    Args:
        metadata: of the dataset.
        rows: what the algorithm's minibatches are made of.
    """
    counts = metadata.candidates if rows == "pairs" and metadata.candidates is not None else metadata.counts
    units = counts.accepted + counts.rejected + counts.unlabelled
    return "all units" if counts.unlabelled > _FEW * units else True


def check_labels(algorithm: AlgorithmDeclaration) -> None:
    """Raise `UserError` for an algorithm that does not depend on labels, or is told scores or values beside them."""
    objective = OBJECTIVES.get(algorithm.objective)
    told = set(objective.inputs.values()) if objective else {"label"}  # an unknown one is another mistake
    if algorithm.rows in ("all", "top", "candidates") and "label" not in told:
        raise UserError(f"{algorithm.name} uses no labels, so that shuffling them is no control")
    if told & _SCORES:
        raise UserError(f"{algorithm.name} uses more than labels, so that shuffling these is no control")
