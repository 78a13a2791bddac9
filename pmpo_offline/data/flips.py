"""The rate at which labels were flipped, estimated from the labels themselves.

Two estimates, the first where the data allow it:

- contradictory duplicates: units of one content have one true label. If each observed one is flipped with probability
  e, two of them disagree with probability 2e(1 - e).
- cross-fitted agreement: a classifier is fitted to the labels without those it is asked about. Where it is right, it
  disagrees with an observed label as often as that was flipped; its own mistakes come on top, so that this is an upper
  estimate, and a tight one only where the labels can be predicted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pmpo_offline.data import columns
from pmpo_offline.data.dataset import Dataset
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.hashing import random_words

_PAIRS = 200
"""So many pairs of duplicates give a rate of .1 to about .02."""
_FOLDS, _NEIGHBOURS, _MOST = 5, 15, 4_000


@dataclass(frozen=True)
class FlipRate:
    """An estimated rate."""

    rate: float
    """Between 0 and 0.499."""
    source: Literal["duplicates", "agreement"]
    count: float
    """The pairs of duplicates, or the labels that were predicted."""


def estimate(dataset: Dataset) -> FlipRate:
    """Estimate the rate of flipped labels; `UserError` where the labels cannot be compared or predicted."""
    meta, by_hand = dataset.metadata, "give flip_rate as a number"
    if meta.unit == "episode" and meta.counts.episodes < len(dataset):
        raise UserError(f"{meta.id} is labelled by episodes, whose steps do not say it alone: {by_hand}")
    label = columns.labels(dataset.table)
    labelled = np.flatnonzero(label != 0)
    label = label[labelled]
    if meta.kind == "responses":
        rows = dataset.table.select(["prompt", "completion"]).take(labelled).to_pylist()
        seen: dict[tuple[str, ...], int] = {}
        content = np.array([seen.setdefault(tuple(row.values()), len(seen)) for row in rows], np.int64)
        if (found := from_duplicates(content, label)) is None:
            raise UserError(f"{meta.id} has too few responses that were labelled twice: {by_hand}")
        return found
    parts = [columns.matrix(dataset.table, name)[labelled] for name in ("observation", "action")]
    features = np.ascontiguousarray(np.concatenate(parts, axis=1))
    content = features.view(f"V{features.strides[0]}").ravel()  # rows as bytes: sorted as one value each
    return from_duplicates(content, label) or from_agreement(features, label)


def from_duplicates(content: NDArray[Any], label: NDArray[np.integer]) -> FlipRate | None:
    """Return the rate by which labels (n,) of equal `content` (n,) contradict one another; None if too few are equal.

    Every pair of a group counts alike.
    """
    _, group = np.unique(content, return_inverse=True)
    size = np.bincount(group).astype(float)
    accepted = np.bincount(group, weights=label > 0)
    pairs = float((size * (size - 1) / 2).sum())
    if pairs < _PAIRS:
        return None
    disagree = min(float((accepted * (size - accepted)).sum()) / pairs, 0.5)
    return FlipRate(min((1 - math.sqrt(1 - 2 * disagree)) / 2, 0.499), "duplicates", pairs)


def from_agreement(features: NDArray[np.floating], label: NDArray[np.integer]) -> FlipRate:
    """Return the share of labels (n,) that disagree with those of their nearest neighbours among other folds.

    Args:
        features: (n, d); each is divided by its own deviation.
        label: (n,), +1 or -1.

    At most 4,000 rows are predicted and asked, drawn at random; the vote is that of 15 neighbours.
    """
    order = np.argsort(random_words(len(label), 0, "flips"), kind="stable")[:_MOST]
    points, sign = features[order].astype(np.float64), np.sign(label[order])
    spread = points.std(0)
    points = points / np.where(spread > 0, spread, 1)
    if len(order) < 2 * _FOLDS:
        raise UserError(
            f"{len(order)} labels are too few to estimate how many were flipped: give flip_rate as a number"
        )
    wrong = 0
    for fold in range(_FOLDS):
        asked = np.arange(len(order)) % _FOLDS == fold
        known, votes = points[~asked], sign[~asked]
        distance = (points[asked] ** 2).sum(1)[:, None] - 2 * points[asked] @ known.T + (known**2).sum(1)
        nearest = np.argpartition(distance, min(_NEIGHBOURS, len(votes)) - 1, axis=1)[:, :_NEIGHBOURS]
        wrong += int((np.where(votes[nearest].sum(1) > 0, 1, -1) != sign[asked]).sum())
    return FlipRate(min(wrong / len(order), 0.499), "agreement", len(order))
