"""The shuffled-label control: labels permuted among all units, so that nothing can be learned from them."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from pmpo_offline.data import Dataset, Metadata, Rows
from pmpo_offline.data.gathering import Steps
from pmpo_offline.declarations import OBJECTIVES
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.training.config import reads_labels

_FEW = 0.001  # of the units: so few unlabelled ones, such as scores that equal the threshold, carry no information
_SCORES = {"advantage", "group_score", "policy_value"}  # inputs that are, or come from, scores


_R = TypeVar("_R", Rows, Steps)


def shuffled(rows: _R, unit: str, seed: int) -> _R:
    """Permute accept, reject and no label among all units (steps or episodes; candidates among themselves).

    If the unlabelled ones kept their places, having a label would still carry information: where a share was reached
    by dropping the labels of accepts, it says reject.
    """
    rng = np.random.default_rng([seed, 7])

    def permute(label: Tensor) -> Tensor:
        return label[torch.from_numpy(rng.permutation(len(label))).to(label.device)]

    if unit == "episode":
        episode = rows.episode
        first = torch.ones_like(episode, dtype=torch.bool)
        first[1:] = episode[1:] != episode[:-1]
        label = permute(rows.label[first])[episode]
    else:
        label = permute(rows.label)
    candidates = rows.candidates
    if candidates is not None:
        shape = candidates.label.shape
        candidates = replace(candidates, label=permute(candidates.label.flatten()).view(shape))
    return replace(rows, label=label, candidates=candidates)


def expected(dataset: Dataset) -> Dataset:
    """Return a dataset whose bounds on β are those of its shuffled labels, on average over permutations.

    Only labels of episodes change them: they move between long and short ones, so that afterwards the same share of the
    steps is rejected as of the episodes. Where failures last longer, the permuted labels have the higher bound, and a
    control at the lower one collapses, whatever its labels.

    Without contexts the bound follows from the rejects before balancing (`Setup.reject_mass`). With labels that carry
    no information all rows hold the rejected outcomes back, and less would do; the control keeps the β of true labels.
    """
    counts = dataset.metadata.counts
    if dataset.metadata.unit != "episode":
        return dataset
    masses = {
        "reject_mass": (counts.rejected + dataset.metadata.imbalance.hidden_rejected) / max(1, counts.episodes),
        "labelled_reject_mass": counts.rejected / max(1, counts.episodes),
        "reject_share": counts.rejected / max(1, counts.accepted + counts.rejected),
    }
    return replace(dataset, metadata=dataset.metadata.model_copy(update=masses))


def identified(metadata: Metadata, rows: str) -> bool | str:
    """Return the entry for a control in the keys of results and the identities of runs.

    "all units" where units are unlabelled: keys held True when these kept their places, and such results are not of
    this control. Where all units are labelled, it is still True.

    Args:
        metadata: of the dataset.
        rows: what the algorithm's minibatches are made of.
    """
    counts = metadata.candidates if rows == "pairs" and metadata.candidates is not None else metadata.counts
    units = counts.accepted + counts.rejected + counts.unlabelled
    return "all units" if counts.unlabelled > _FEW * units else True


def check_control(algorithm: AlgorithmDeclaration, *, responses: bool) -> None:
    """Raise `UserError` where shuffling is no control: not all that the algorithm learns from is permuted.

    Labels are permuted, and of responses the scores too (`TokenizedResponses.shuffled`). Elsewhere an algorithm that
    also reads scores or values would still learn from these.

    Args:
        algorithm: that is to learn from what was permuted.
        responses: whether it learns from responses.
    """
    if algorithm.objective not in OBJECTIVES:  # another mistake
        return
    scores = algorithm.rows == "top" or not _SCORES.isdisjoint(OBJECTIVES[algorithm.objective].needs)
    if not reads_labels(algorithm) and not (responses and scores):
        also = " and no scores" if responses else ""
        raise UserError(f"{algorithm.name} uses no labels{also}, so that shuffling them is no control")
    if scores and not responses:
        raise UserError(f"{algorithm.name} uses more than labels, so that shuffling these is no control")
