"""What every number that comes from outside must be: finite, a zero or one where it is a flag, within its bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pmpo_offline.runtime.errors import UserError


def floats(values: NDArray[Any], where: str) -> NDArray[np.float32]:
    """Return numbers as float32, rows first; `UserError` names the first row that is not finite (or overflows)."""
    if values.dtype.kind not in "fiub":
        raise UserError(f"{where} holds {values.dtype} where numbers are due")
    with np.errstate(over="ignore"):
        numbers = np.ascontiguousarray(values, np.float32)
    # A sum is not finite if one term is not, and needs no array of Booleans; only what fails is searched.
    with np.errstate(over="ignore", invalid="ignore"):
        suspicious = not np.isfinite(numbers.sum(dtype=np.float64))
    if suspicious:
        bad = ~np.isfinite(numbers.reshape(len(numbers), -1)).all(axis=1)
        if bad.any():
            row = int(bad.argmax())
            raise UserError(
                f"{where} holds NaN or infinite values, first in row {row} ({int(bad.sum())} rows in all): "
                "drop those episodes and import again"
            )
    return numbers


def flags(values: NDArray[Any], where: str) -> NDArray[np.bool_]:
    """Return a column of zeros and ones as Booleans; `UserError` where it holds anything else."""
    numbers = floats(values.reshape(len(values), -1)[:, 0] if values.ndim > 1 else values, where)
    marked: NDArray[np.bool_] = numbers != 0
    if (numbers[marked] != 1).any():
        row = int(np.flatnonzero(marked)[(numbers[marked] != 1).argmax()])
        raise UserError(f"{where} holds {numbers[row]:g} in row {row}: write 0 and 1")
    return marked


def within(
    action: NDArray[np.float32], low: NDArray[np.floating], high: NDArray[np.floating], where: str
) -> NDArray[np.float32]:
    """Return the actions (n, A) as they are; `UserError` names the first row outside its own space's bounds (A,)."""
    slack = 1e-4 * np.maximum(1.0, np.where(np.isfinite(high - low), high - low, 1.0))
    outside = ((action < low - slack) | (action > high + slack)).any(axis=1)
    if outside.any():
        row = int(outside.argmax())
        raise UserError(
            f"{where}: row {row} is outside the action space "
            f"({int(outside.sum())} rows in all): clip them to what the environment applied and import again"
        )
    return action
