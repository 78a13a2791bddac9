"""Rewards by tolerance, as dm_control defines them: 1 inside an interval, sloping to 0 outside it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Slope = Literal["gaussian", "linear", "quadratic"]


def tolerance(
    x: Array, low: float, high: float, margin: float = 0.0, slope: Slope = "gaussian", at_margin: float = 0.1
) -> Array:
    """Return how well `x` lies within [low, high], of its shape, in [0, 1].

    With d the distance to the interval in margins and v the value at distance 1:

        gaussian   exp(d² ln v)
        linear     max(0, 1 - d (1 - v))
        quadratic  max(0, 1 - d² (1 - v))

    Without a margin everything outside is 0.

    Args:
        x: any quantity.
        low: lower end of the interval, inclusive; -inf where there is none.
        high: upper end, inclusive; inf where there is none.
        margin: distance, in the units of `x`, at which the value is `at_margin`.
        slope: the form outside the interval.
        at_margin: v, in (0, 1); 0 too where the form is not gaussian.

    Raises:
        ValueError: if the interval is empty, the margin negative or v outside its range.
    """
    if not low <= high:
        raise ValueError(f"no number lies between {low} and {high}: exchange the ends of the interval")
    if not margin >= 0:
        raise ValueError(f"margin must not be negative, got {margin}")
    if not 0 <= at_margin < 1 or (slope == "gaussian" and at_margin == 0):
        raise ValueError(f"at_margin must be in (0, 1), or 0 with a linear or quadratic slope, got {at_margin}")
    distance = np.maximum(np.maximum(low - x, x - high), 0.0)
    if margin == 0:
        return np.asarray(distance == 0, np.float64)
    return _sloping(distance / margin, slope, at_margin)


def _sloping(d: Array, slope: Slope, v: float) -> Array:
    """Return the value at `d` >= 0 margins from the interval."""
    if slope == "gaussian":
        return np.asarray(np.exp(d**2 * np.log(v)))
    if slope == "linear":
        return np.asarray(np.maximum(0.0, 1 - d * (1 - v)))
    return np.asarray(np.maximum(0.0, 1 - d**2 * (1 - v)))
