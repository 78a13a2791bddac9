"""Episodes in the manner of RLDS without TensorFlow: flat arrays of steps, in .npz, .hdf5 or .parquet files.

observation (M, O)   or several, observation/<name> (M, n), joined in the order of their names
action (M, A), reward (M,)
is_first, is_last, is_terminal (M,)

As in RLDS (arXiv 2111.02767) an episode of T actions is T+1 steps: the last one holds the final observation only, its
action and reward mean nothing. Truncated is what is last and not terminal. A folder of such files is read in the order
of their names, and an episode may go on in the next file. To write one from tensorflow_datasets, append every step's
fields to lists and `numpy.savez` them. An episode with no last step (the recording broke off) loses its last action,
because what followed it is lost.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pmpo_offline.data.exchange.readers.episodes import cut
from pmpo_offline.data.exchange.readers.flat import Flat, Kind
from pmpo_offline.data.exchange.readers.source import Recorded, Source
from pmpo_offline.runtime.errors import UserError

_MATRIX: Kind = "matrix"
_NEEDED: dict[str, Kind] = {
    "action": "actions",
    "reward": "vector",
    "is_first": "flags",
    "is_last": "flags",
    "is_terminal": "flags",
}


def is_rlds(flat: Flat) -> bool:
    """Return whether the names of the arrays are those of RLDS's steps."""
    return "is_first" in flat.names or "is_last" in flat.names


def source(flat: Flat, files: list[Path]) -> Source:
    """Return the file, or the folder of `files`, as a source."""
    name = flat.path.stem
    return Source(
        format="rlds",
        name=name,
        files={path.name: path for path in files},
        read=lambda: _read(flat, name),
        packages=("numpy", "h5py", "pyarrow"),
    )


def _read(flat: Flat, name: str) -> Recorded:
    named = sorted(each for each in flat.names if each.startswith("observation/"))
    parts = named if named and "observation" not in flat.names else ["observation"]
    arrays = flat.read({**dict.fromkeys(parts, _MATRIX), **_NEEDED})
    end = _ends(arrays["is_first"], arrays["is_last"], arrays["is_terminal"], flat.path)
    experience = cut(
        str(flat.path),
        name,
        observation=arrays[parts[0]] if len(parts) == 1 else np.concatenate([arrays[part] for part in parts], axis=1),
        action=arrays["action"],
        reward=arrays["reward"],
        end=end,
        terminal=arrays["is_terminal"],
        bare=np.ones(len(end), np.bool_),
    )
    notes = {
        "rewards": True,
        "success": False,
        "rows_that_are_final_states": len(end) - len(experience.reward),
        "episodes_without_a_last_step": int((end & ~arrays["is_last"]).sum()),
    }
    return Recorded(experience, notes)


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
