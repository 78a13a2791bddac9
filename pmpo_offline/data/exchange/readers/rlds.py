"""Episodes in the manner of RLDS without TensorFlow: flat arrays of steps, in .npz, .hdf5 or .parquet files.

observation (M, O)   or several, observation/<name> (M, n), joined in the order of their names
action (M, A), reward (M,)
is_first, is_last, is_terminal (M,)
success (M,)         where given, an episode that was solved at any step is a success

As in RLDS (arXiv 2111.02767) an episode of T actions is T+1 steps: the last one holds the final observation only, its
action and reward mean nothing and may be NaN. Truncated is what is last and not terminal. A folder of such files is
read in the order of their names, and an episode may continue in the next file. To write one from tensorflow_datasets,
append every step's fields to lists and `numpy.savez` them. An episode with no last step (the recording broke off) loses
its last action, because what followed it is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from pmpo_offline.data.exchange.readers.arrays import Array, Kind, is_nan, without
from pmpo_offline.data.exchange.readers.episodes import (
    NO_STEP,
    UNREAD_REWARDS,
    Rows,
    recorded,
    report,
    single_states,
    steps_of,
)
from pmpo_offline.data.exchange.readers.flat import Flat
from pmpo_offline.data.exchange.readers.order import check_numbers
from pmpo_offline.data.exchange.readers.source import Candidate, Reader, Recorded, of_arrays
from pmpo_offline.runtime.errors import UserError

_MARKS: dict[str, Kind] = {"is_first": "flags", "is_last": "flags", "is_terminal": "flags"}
_VALUES: dict[str, Kind] = {"action": "actions", "reward": "vector"}
_LOST = "the last row of an episode without a last step: what followed it is not in the file"


def _is_rlds(given: Candidate) -> bool:
    return given.has("is_first") or given.has("is_last")


def _read(flat: Flat, name: str, column: str | None) -> Recorded:
    flat.need("observation", *_VALUES, *_MARKS)
    marks = flat.read({"observation": "matrix", **_MARKS})
    end = _ends(marks["is_first"], marks["is_last"], marks["is_terminal"], flat.path)
    values = flat.read(_VALUES, unused=end)
    if "discount" in flat.names:
        _check_discount(flat["discount"], end, marks, flat.path)
    rows = Rows(
        marks["observation"],
        values["action"],
        values["reward"],
        end=end,
        terminal=marks["is_terminal"],
        bare=np.ones(len(end), np.bool_),
        success=flat.solved(np.flatnonzero(end)),
        named=check_numbers(flat, end),
    )
    feedback = flat.feedback(column)
    broken = end & ~marks["is_last"]
    unread = without(flat["reward"].reshape(-1), is_nan(flat["reward"]))[marks["is_last"]]
    notes: dict[str, JsonValue] = {
        "rows_that_are_final_states": int((~steps_of(rows)).sum()),
        **({UNREAD_REWARDS: count} if (count := int(np.count_nonzero(unread))) else {}),
        "episodes_without_a_last_step": int(broken.sum()),
        **report(rows, {_LOST: broken, NO_STEP: single_states(rows) & ~broken}, flat.unused),
    }
    return recorded(rows, str(flat.path), name, notes, feedback)


def _check_discount(
    discount: Array, end: NDArray[np.bool_], marks: Mapping[str, NDArray[np.bool_]], path: Path
) -> None:
    """Raise `UserError` where the task ended an episode by its discount (M,) of 0, and by its marks did not.

    Zeros throughout were never set, and NaN says nothing.
    """
    said = discount.reshape(len(discount), -1)
    if said.shape != (len(end), 1) or said.dtype.kind not in "fiub" or not said.any():
        return
    ended = np.append(said[:-1, 0] == 0, False) & np.append(end[1:], False)  # in the last step
    if (wrong := ended & ~np.append(marks["is_terminal"][1:], False)).any():
        raise UserError(
            f"{path}: discount is 0 in row {int(wrong.argmax())}, an episode's last step, and the row after it is not "
            "is_terminal: correct one of them"
        )


def _ends(
    first: NDArray[np.bool_], last: NDArray[np.bool_], terminal: NDArray[np.bool_], path: Path
) -> NDArray[np.bool_]:
    """Return the last rows of the episodes (M,); `UserError` where the marks contradict one another."""
    after = np.append(first[1:], True)  # the file ends what is open
    if not first[0]:
        raise UserError(f"{path}: row 0 is not is_first: the first episode lacks its beginning")
    if (last & ~after).any():
        raise UserError(f"{path}: row {int((last & ~after).argmax())} is_last, and the row after it is not is_first")
    if (terminal & ~last).any():
        raise UserError(f"{path}: row {int((terminal & ~last).argmax())} is_terminal and not is_last")
    return after


RLDS = Reader(
    name="rlds",
    reads="RLDS-like steps (is_first, is_last, is_terminal) as .npz, .hdf5 or .parquet, or a folder of them",
    recognises=_is_rlds,
    open=lambda given: of_arrays("rlds", given, _read, packages=("numpy", "h5py", "pyarrow")),
    example="steps.npz",
)
