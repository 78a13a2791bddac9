"""Numbers as float32, and the count of those that this rounds: whole numbers beyond 2²⁴."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
EXACT = 2**24
"""Up to here every whole number has a float32 of its own."""
_rounded: ContextVar[Counter[str] | None] = ContextVar("rounded", default=None)


@contextmanager
def counting_rounded() -> Iterator[Counter[str]]:
    """Count the rows of each array that are read meanwhile and that float32 rounds, beyond 2²⁴."""
    found: Counter[str] = Counter()
    token = _rounded.set(found)
    try:
        yield found
    finally:
        _rounded.reset(token)


def note_rounded(numbers: NDArray[np.float32], values: Array, name: str) -> None:
    """Count the rows of `values` that are other numbers as float32, where some are beyond 2²⁴."""
    found = _rounded.get()
    if found is None or numbers.dtype == values.dtype or not numbers.size:
        return
    if not max(numbers.max(), -numbers.min()) >= EXACT:
        return
    for start in range(0, len(numbers), 65536):
        rows = slice(start, start + 65536)
        changed = (np.abs(numbers[rows]) >= EXACT) & (numbers[rows].astype(np.float64) != values[rows])
        if count := int(changed.reshape(len(changed), -1).any(axis=1).sum()):
            found[name] += count


def as_float32(values: Array, name: str) -> NDArray[np.float32]:
    """Return numbers as float32; what that rounds is counted under `name`."""
    with np.errstate(over="ignore"):
        numbers = np.ascontiguousarray(values, np.float32)
    note_rounded(numbers, values, name)
    return numbers
