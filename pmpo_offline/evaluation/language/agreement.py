"""How far two raters agree on accept and reject: a judge, and the labels of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Agreement:
    """Of n units that both have rated."""

    n: int
    accuracy: float | None
    """Share of equal ratings; None for n = 0."""
    kappa: float | None
    """Cohen's: 1 always equal, 0 as often equal as two raters who throw coins with the same shares of accepts; None
    where the coins could never differ."""


def agreement(ratings: Sequence[bool], others: Sequence[bool]) -> Agreement:
    """Compare two raters of the same units.

    κ = (p_o − p_e) / (1 − p_e) with p_o the share of equal ratings and p_e = a b + (1 − a)(1 − b), where a and b are
    the raters' shares of accepts. Cohen 1960, "A coefficient of agreement for nominal scales".
    """
    ours, theirs = np.asarray(ratings, np.bool_), np.asarray(others, np.bool_)
    if not len(ours):
        return Agreement(0, None, None)
    equal, a, b = float((ours == theirs).mean()), float(ours.mean()), float(theirs.mean())
    chance = a * b + (1 - a) * (1 - b)
    return Agreement(len(ours), equal, (equal - chance) / (1 - chance) if chance < 1 else None)
