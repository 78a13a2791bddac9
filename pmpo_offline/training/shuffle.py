"""The control: labels that were permuted among all units, so that nothing is left to learn from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pmpo_offline.data import Dataset, Metadata, Rows
from pmpo_offline.declarations import OBJECTIVES
from pmpo_offline.declarations.catalog import AlgorithmDeclaration
from pmpo_offline.runtime.errors import UserError

_FEW = 0.001  # of the units: whether as few as that have a label, say scores that equal the threshold, tells nothing
_SCORES = {"advantage", "group_score", "policy_value"}  # inputs that are, or come from, scores


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

    Without contexts the bound goes by the rejects before balancing (`bound.reject_mass`). Once labels say nothing, all
    rows hold the rejected outcomes back, so that less would do; the control keeps the β that true labels would have.
    """
    counts = dataset.metadata.counts
    if dataset.metadata.unit != "episode":
        return dataset
    masses = {
        "reject_mass": (counts.rejected + dataset.metadata.imbalance.dropped_rejected) / max(1, counts.episodes),
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


def check_control(algorithm: AlgorithmDeclaration, *, responses: bool) -> None:
    """Raise `UserError` where shuffling is no control: feedback that is learned from stays as it is, or there is none.

    Labels are permuted, and of responses the scores too (`Responses.shuffled`). Elsewhere who is told scores or values
    beside the labels would still learn from these.

    Args:
        algorithm: that is to learn from what was permuted.
        responses: whether it learns from responses.
    """
    known = algorithm.objective in OBJECTIVES  # an unknown one is another mistake
    told = set(OBJECTIVES[algorithm.objective].inputs.values()) if known else {"label"}
    labels = algorithm.rows in ("accepted", "balanced", "pairs") or "label" in told
    scores = algorithm.rows == "top" or bool(told & _SCORES)
    if not labels and not (responses and scores):
        also = " and no scores" if responses else ""
        raise UserError(f"{algorithm.name} uses no labels{also}, so that shuffling them is no control")
    if scores and not responses:
        raise UserError(f"{algorithm.name} uses more than labels, so that shuffling these is no control")
