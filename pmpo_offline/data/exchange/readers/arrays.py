"""The checks that every array of a source must pass, by what it is to be: numbers, flags, discrete actions.

Numbers become float32, and those that this rounds, whole numbers beyond 2²⁴, are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pmpo_offline.data.mapping import gathered, slices
from pmpo_offline.runtime.errors import UserError

Array = NDArray[Any]
EXACT = 2**24
"""Up to here every whole number has a float32 of its own."""
_rounded: ContextVar[Counter[str] | None] = ContextVar("rounded", default=None)


Kind = Literal["matrix", "actions", "vector", "flags"]
"""How an array is checked, and what it is read as: (M, n) or (M,) float32, (M,) Booleans, (M, 1) int32."""
Kinds = Mapping[str, Kind]


def checked(arrays: Mapping[str, Array], kinds: Kinds, where: object) -> dict[str, Array]:
    """Return arrays that were read already as their kinds; `UserError` for one that is not of its kind."""
    return {name: as_kind(kind, arrays[name], f"{where}: {name}") for name, kind in kinds.items()}


def as_kind(kind: Kind, values: Array, where: str) -> Array:
    """Return an array as its kind; `UserError`, which begins with `where`, if it is not of that kind."""
    return _READ[kind](values, where)


def solved_rows(values: Array, last: NDArray[np.int64], where: str) -> NDArray[np.bool_] | None:
    """Return flags of rows (M,), of values of rows or of episodes; NaN says nothing, and None is of nothing else.

    `last` (E,) are the last rows of the episodes. Raises `UserError` if only some episodes are spoken of.
    """
    values = by_row(values, last, where)
    empty = is_nan(values)
    if empty.all():
        return None
    if (silent := np.logical_and.reduceat(empty, np.append(0, last[:-1] + 1))).any():
        raise UserError(
            f"{where} says nothing of {int(silent.sum())} episodes, first of number {int(silent.argmax())}: write it "
            "of all of them, or of none"
        )
    return as_kind("flags", without(values, empty), where)


def is_nan(values: Array) -> NDArray[np.bool_]:
    """Return the rows (M,) that hold NaN."""
    if values.dtype.kind != "f":
        return np.zeros(len(values), np.bool_)
    blocks = (values[rows] for rows in slices(len(values)))
    return np.concatenate([np.isnan(block).any(axis=tuple(range(1, block.ndim))) for block in blocks])


def is_blank(values: Array) -> NDArray[np.bool_]:
    """Return the values (M,) that are NaN, None or an empty text."""
    if values.dtype.kind in "OSU":
        return np.array([value is None or value != value or value in ("", b"") for value in values.tolist()], np.bool_)
    return is_nan(values)


def without(values: Array, unused: NDArray[np.bool_]) -> Array:
    """Return values (M, …) with 0 in the rows that are unused."""
    if not unused.any():
        return values
    empty = unused.reshape(-1, *[1] * (values.ndim - 1))
    return gathered(np.where(empty[rows], values.dtype.type(0), values[rows]) for rows in slices(len(values)))


def side_by_side(parts: Sequence[Array]) -> Array:
    """Return arrays of the same rows, (M, n) or (M,), as one matrix."""
    matrices = [part.reshape(len(part), -1) for part in parts]
    return gathered(np.concatenate([part[rows] for part in matrices], axis=1) for rows in slices(len(parts[0])))


def by_row(values: Array, last: NDArray[np.int64], where: str) -> Array:
    """Return a value for each row: what is of episodes (E,), or of a file with one, repeated for all of its rows.

    `last` (E,) are the last rows of the episodes. Raises `UserError` for another number of values.
    """
    values = np.atleast_1d(values)
    count = int(last[-1]) + 1
    if len(values) == count:
        return values
    if len(values) != len(last):
        raise UserError(f"{where} has {len(values)} rows: expected one a step, {count}, or one an episode, {len(last)}")
    return np.repeat(values, np.diff(last, prepend=-1), axis=0)


def floats(values: Array, where: str) -> NDArray[np.float32]:
    """Return numbers as float32, rows first; `UserError` names the first row that is not finite (or overflows)."""
    if values.dtype.kind not in "fiub":
        texts = (value for value in values.flat if not isinstance(value, int | float))
        found = f"{next(texts, None)!r:.40}" if values.dtype.kind == "O" else values.dtype
        raise UserError(f"{where}: expected numbers, found {found}")
    numbers = values
    if values.dtype != np.float32 or not values.flags.c_contiguous or not values.ndim:
        name, rows_of = where.rpartition(": ")[2], values.reshape(-1) if not values.ndim else values
        numbers = gathered(as_float32(rows_of[rows], name) for rows in slices(len(rows_of)))
    # A sum is not finite if one term is not, and needs no array of Booleans; only what fails is searched.
    with np.errstate(over="ignore", invalid="ignore"):
        suspicious = not all(np.isfinite(numbers[rows].sum(dtype=np.float64)) for rows in slices(len(numbers)))
    if suspicious:
        bad = np.concatenate(
            [~np.isfinite(numbers[rows].reshape(-1, numbers[:1].size)).all(axis=1) for rows in slices(len(numbers))]
        )
        if bad.any():
            raise UserError(
                f"{where} holds NaN or infinite values, first in row {int(bad.argmax())} ({int(bad.sum())} rows in "
                "all): drop those episodes and import again"
            )
    return numbers


def flags(values: Array, where: str) -> NDArray[np.bool_]:
    """Return a column of zeros and ones as Booleans; `UserError` where it holds anything else."""
    numbers = _vector(np.atleast_1d(values), where)
    marked: NDArray[np.bool_] = numbers != 0
    if (numbers[marked] != 1).any():
        row = int(np.flatnonzero(marked)[(numbers[marked] != 1).argmax()])
        raise UserError(f"{where}: expected 0 or 1, found {numbers[row]:g} in row {row}")
    return marked


def _matrix(values: Array, where: str) -> NDArray[np.float32]:
    if values.ndim == 1 and values.dtype.kind in "fiub":  # one number a row
        values = values[:, None]
    if values.ndim != 2 and values.dtype.kind not in "fiub":
        return floats(values, where)  # raises
    if values.ndim != 2 or not values.shape[1]:
        kind = "images are" if values.ndim >= 3 else "that shape is"
        raise UserError(f"{where} has shape {values.shape}, and {kind} not supported: write rows of numbers (M, n)")
    return floats(values, where)


def _actions(values: Array, where: str) -> Array:
    return choices(values, where) if values.dtype.kind in "iub" else _matrix(values, where)


def choices(values: Array, where: str) -> NDArray[np.int32]:
    """Return discrete actions, one whole number from 0 or one-hot a row, as (n, 1); `UserError` for anything else."""
    if is_one_hot(values):
        values = values.argmax(axis=1)
    if values.shape not in ((len(values),), (len(values), 1)):
        raise UserError(
            f"{where} is of whole numbers, of shape {values.shape}: one discrete action a step can be "
            "read; number the combinations of several"
        )
    numbers = values.reshape(-1, 1).astype(np.int64)
    if ((numbers < 0) | (numbers >= 2**31)).any():
        raise UserError(f"{where}: discrete actions are counted from 0, and one is {int(numbers.min())}")
    return numbers.astype(np.int32)


def is_one_hot(values: Array) -> bool:
    """Return whether every row of a matrix is one 1 among zeros, in two columns or more, each of which is used."""
    if values.ndim != 2 or values.shape[1] < 2 or values.dtype.kind not in "fiub" or not len(values):
        return False
    ones = values == 1
    return bool(((values == 0) | ones).all() and (ones.sum(axis=1) == 1).all() and ones.any(axis=0).all())


def _vector(values: Array, where: str) -> NDArray[np.float32]:
    if values.ndim != 1 and values.shape[1:] != (1,):
        raise UserError(f"{where}: expected one number a row, found shape {values.shape}")
    return floats(values.reshape(-1), where)


_READ: Mapping[Kind, Callable[[Array, str], Array]] = {
    "matrix": _matrix,
    "actions": _actions,
    "vector": _vector,
    "flags": flags,
}


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
    for rows in slices(len(numbers), 65536):
        changed = (np.abs(numbers[rows]) >= EXACT) & (numbers[rows].astype(np.float64) != values[rows])
        if count := int(changed.reshape(len(changed), -1).any(axis=1).sum()):
            found[name] += count


def as_float32(values: Array, name: str) -> NDArray[np.float32]:
    """Return numbers as float32; what that rounds is counted under `name`."""
    with np.errstate(over="ignore"):
        numbers = np.ascontiguousarray(values, np.float32)
    note_rounded(numbers, values, name)
    return numbers
