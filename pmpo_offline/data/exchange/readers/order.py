"""Checks that flat rows are episodes, one after the other: by what followed a row, and by columns of numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pmpo_offline.data.exchange.readers.flat import EPISODES, Flat
from pmpo_offline.data.mapping import slices
from pmpo_offline.runtime.errors import UserError

STEPS = ("step", "step_id", "step_index", "frame_index", "timestep", "timesteps")
_TIMES = ("timestamp", "timestamps", "time", "datetime")
_SORT = "sort the rows by episode and step"
_BLOCK = 65536


def ends_by_successors(
    observation: NDArray[np.float32],
    following: NDArray[np.float32],
    marked: NDArray[np.bool_],
    path: Path,
    *,
    every: bool,
) -> tuple[NDArray[np.bool_], int]:
    """Return the last rows (M,) of episodes, `marked` or not, and how many of them, but for the last row, are not.

    A row whose successor is not the row after it ends an episode. Raises `UserError` if most rows do: a replay buffer
    in random order is no set of episodes.

    Args:
        observation: (M, O).
        following: (M, O) what was observed after each row.
        marked: (M,) ends that are marked.
        path: named in errors.
        every: whether every end should be marked.
    """
    end = marked | _seams(observation, following, path)
    unmarked = int((end[:-1] & ~marked[:-1]).sum())
    count = len(end)
    if unmarked * 2 > (count - int(marked.sum()) if every else count):
        raise UserError(
            f"{path}: the rows do not follow one another: after {unmarked} of {count}, first row "
            f"{int((end & ~marked).argmax())}, next_observations is not the next row's observation, and no episode "
            "ends there: a shuffled replay buffer is no set of episodes, write its rows in the order of recording"
        )
    end[-1] = True
    return end, unmarked


def check_numbers(flat: Flat, end: NDArray[np.bool_]) -> NDArray[Any] | None:
    """Return the numbers or names (E,) of episodes in the first column that has them, None if there is none.

    Raises `UserError` where columns that number episodes or steps contradict the last rows (M,) of episodes.
    """
    last, named = np.flatnonzero(end), None
    inside = ~end[:-1]
    for name in EPISODES:
        if (found := _column(flat, name, len(end))) is None:
            continue
        ids, numbers = np.unique(found, return_inverse=True)
        changes = numbers[1:] != numbers[:-1]
        if (changes & inside).any():
            row = int((changes & inside).argmax())
            raise UserError(
                f"{flat.path}: {name} changes from {found[row]} to {found[row + 1]} after row {row}, and no "
                f"episode ends there: {_SORT}, and mark every episode's last row"
            )
        own = numbers[last]
        again = np.setdiff1d(np.arange(len(own)), np.unique(own, return_index=True)[1])
        if len(again):
            raise UserError(
                f"{flat.path}: {name} {ids[own[again[0]]]} comes back after row {last[again[0] - 1]}, another "
                f"episode's last: {_SORT}"
            )
        named = _numbered(found[last]) if named is None else named
    for name in (*STEPS, *_TIMES):
        if (found := _column(flat, name, len(end))) is None or found.dtype.kind not in "iufM":
            continue
        falls = (found[1:] < found[:-1] if name in _TIMES else found[1:] <= found[:-1]) & inside
        if falls.any():
            row, hint = int(falls.argmax()), ", or rename it if it is how long a step took" if name in _TIMES else ""
            raise UserError(
                f"{flat.path}: {name} goes from {found[row]} to {found[row + 1]} after row {row}, within an "
                f"episode: {_SORT}, and mark every episode's last row{hint}"
            )
    return named


def _numbered(found: NDArray[Any]) -> NDArray[Any] | None:
    """Return names of episodes (E,), as whole numbers if that is what they are; None for other numbers."""
    if found.dtype.kind == "U" and not all(map(str.isdecimal, found.tolist())):
        return found
    with np.errstate(invalid="ignore", over="ignore"):
        numbers = found.astype(np.float64).astype(np.int64)
    return numbers if found.dtype.kind == "U" or (numbers == found).all() else None


def _column(flat: Flat, name: str, count: int) -> NDArray[Any] | None:
    """Return a column (M,) of numbers or texts; None if there is none of this name."""
    if name not in flat.names:
        return None
    values = flat[name]
    if values.dtype.kind in "OS":
        values = np.array([v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in values.flat])
    return values if values.shape == (count,) else None


def _seams(observation: NDArray[np.float32], following: NDArray[np.float32], path: Path) -> NDArray[np.bool_]:
    """Return the rows (M,) whose successor is not the row after them, at the coarser precision of the two arrays."""
    if observation.shape != following.shape:
        raise UserError(
            f"{path}: observations have {observation.shape[1]} numbers and next_observations {following.shape[1]}"
        )
    finer, coarser = sorted((_precision(observation), _precision(following)))
    close = coarser if finer < coarser else 1e-5
    reach = np.max([np.abs(observation[rows]).max(axis=0) for rows in slices(len(observation))], axis=0)
    slack = 1e-6 * np.minimum(1, reach)  # of small numbers, less
    seams = np.ones(len(observation), np.bool_)
    for rows in slices(len(observation) - 1, _BLOCK):  # in parts: the differences need no second array of this size
        after = observation[rows.start + 1 : rows.stop + 1]
        seams[rows] = ~np.isclose(following[rows], after, rtol=close, atol=slack).all(axis=1)
    return seams


def _precision(values: NDArray[np.float32]) -> float:
    """Return a step, as a share of a number's size, of the type that numbers were stored in, whatever it is now."""
    some = np.ascontiguousarray(values[:_BLOCK])
    if not (some.view(np.uint32) & 0xFFFF).any():
        return 2.0**-7  # bfloat16
    with np.errstate(over="ignore"):
        is_half = np.array_equal(some.astype(np.float16).astype(np.float32), some)
    return 2.0**-10 if is_half else 2.0**-23
