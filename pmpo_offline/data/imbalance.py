"""The accepted share of the labelled units, made exact by leaving units of the too frequent class unlabelled.

share 0.25   accept ■■■■■■■■ → ■■□□□□□□     the first 2 of one seeded order of the accepts stay labelled,
             reject ■■■■■■   → ■■■■■■       □ becomes unlabelled: no row is moved, copied or thrown away
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pmpo_offline.data.labels import Labels
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.random_words import random_words


class Balanced(NamedTuple):
    """Labels (n,) at the share asked for, and how many labels that cost in each class."""

    labels: Labels
    dropped_accepted: int
    dropped_rejected: int


def balance(labels: Labels, share: float | None, seed: int) -> Balanced:
    """Leave units unlabelled until the accepted ones are `share` of the labelled ones, as nearly as whole units allow.

    Only the class of which there is too much loses labels. A unit's place in the order of its class depends on nothing
    but `seed` and its index, so of two shares on one side of the collected one, the labels of the farther are among
    those of the nearer. None keeps the collected share.

    Raises `UserError` where the share is outside [0, 1] or there are not enough accepts or rejects for it.
    """
    accepts, rejects = np.flatnonzero(labels > 0), np.flatnonzero(labels < 0)
    if share is None:
        return Balanced(labels, 0, 0)
    keep_accepts, keep_rejects = _quota(len(accepts), len(rejects), share)
    order = random_words(labels.size, seed, "imbalance")
    dropped_accepts = accepts[np.argsort(order[accepts], kind="stable")][keep_accepts:]
    dropped_rejects = rejects[np.argsort(order[rejects], kind="stable")][keep_rejects:]
    result = labels.copy()
    result[dropped_accepts] = 0
    result[dropped_rejects] = 0
    return Balanced(result, len(dropped_accepts), len(dropped_rejects))


def _quota(accepts: int, rejects: int, share: float) -> tuple[int, int]:
    """Return how many of each class stay labelled."""
    if not 0.0 <= share <= 1.0:
        raise UserError(f"imbalance {share:g} is the accepted share of the labels: choose one between 0 and 1")
    if share * rejects < (1.0 - share) * accepts:  # too many accepts
        quota = (int(np.floor(share / (1.0 - share) * rejects + 0.5)), rejects)
    else:
        quota = (accepts, int(np.floor((1.0 - share) / share * accepts + 0.5)) if share else rejects)
    # Both classes were asked for but one rounds to nothing, or the only class asked for has no members.
    if (share > 0.0 and quota[0] == 0) or (share < 1.0 and quota[1] == 0):
        raise UserError(
            f"imbalance {share:g} is impossible with {accepts} accepted and {rejects} rejected units: "
            f"{_possible(accepts, rejects)}; or change the label rule"
        )
    return quota


def _possible(accepts: int, rejects: int) -> str:
    if accepts and rejects:
        return f"possible are {1 / (1 + rejects):.4g} to {accepts / (1 + accepts):.4g}, 0 and 1"
    return "possible is only 1" if accepts else "possible is only 0" if rejects else "nothing is labelled"
