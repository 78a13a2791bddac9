"""HDF5 files in D4RL's layout: flat arrays, one row a step, episodes one after the other.

observations (M, O), actions (M, A), rewards (M,), terminals (M,): the task ended the episode
timeouts (M,)             time ran out
next_observations (M, O)  where given, it decides: each episode's final observation comes from it, and a row whose
                          successor is not the row after it ends an episode, marked or not (as IQL's reader has it);
                          where all that ran out of time have the next episode's first observation there, as a vector
                          environment that resets itself records it, what followed is lost as without them
infos/success (M,)        where given, an episode that was solved at any step is a success; or is_success

timeouts may be missing where there are next_observations. Without those, the last row of an episode that ran out of
time is dropped, because what followed it is lost (see `episodes`). Files whose rows are shuffled are refused. All other
infos and metadata are ignored.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from pmpo_offline.data.exchange import d4rl_scores
from pmpo_offline.data.exchange.exported import found_in, tables
from pmpo_offline.data.exchange.readers.episodes import GOES_ON, RESET, Rows, recorded, report
from pmpo_offline.data.exchange.readers.flat import SUCCESS, Flat, Kind
from pmpo_offline.data.exchange.readers.order import (
    begins_with_resets,
    check_numbers,
    ends_by_successors,
    resets_itself,
)
from pmpo_offline.data.exchange.readers.source import Candidate, Environment, Exported, Reader, Recorded, Source
from pmpo_offline.data.mapping import gathered, slices
from pmpo_offline.data.schema import References
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.files import from_json

_NEEDED: dict[str, Kind] = {
    "observations": "matrix",
    "actions": "actions",
    "rewards": "vector",
    "terminals": "flags",
}
_OPTIONAL: dict[str, Kind] = {"timeouts": "flags", "next_observations": "matrix", **SUCCESS}
_LICENCE = "CC-BY-4.0"  # of D4RL's data sets
_OURS = {"id", "task", "label", "licence"}
"""Attributes that all exports of this package have."""
_LOST = "the last row of an episode that ran out of time: what followed it is not in the file"


def _is_d4rl(given: Candidate) -> bool:
    single = len(given.files) == 1 and not given.path.is_dir() and given.path.suffix != ".parquet"
    return single and bool(_NEEDED.keys() & given.flat.names)


def _source(given: Candidate) -> Source:
    """Return the file as a source; a name that D4RL knows brings its environment and reference scores.

    Exports of this package say in attributes what they are of: whatever they are called, they are none of D4RL's.
    """
    flat = given.flat
    # The files are called hopper_medium-v2.hdf5, the data sets hopper-medium-v2.
    name = flat.path.stem.replace("_", "-")
    said = flat.attributes
    ours = said.keys() >= _OURS
    environment = None if ours else d4rl_scores.environment(name)
    return Source(
        format="d4rl",
        name=name,
        files={flat.path.name: flat.path},
        read=lambda column=None: _read(flat, name, column),
        packages=("h5py",),
        takes_column=True,
        exported=_exported(flat, name),
        task=str(said["task"]) if ours else None,
        environment=Environment(environment) if environment else None,
        references=_recorded_references(flat) if ours else d4rl_scores.references(name),
        licence=_LICENCE if environment else str(said.get("licence", "unknown")),
        author="D4RL (arXiv 2004.07219)" if environment else "unknown",
    )


def _recorded_references(flat: Flat) -> References | None:
    said = flat.attributes
    if "ref_min_score" not in said or "ref_max_score" not in said:
        return None
    how = f"of {said.get('id', 'the dataset')}, from which {flat.path.name} was exported"
    try:
        versions = from_json(said.get("ref_versions", "{}"))
        return References(
            min=float(said["ref_min_score"]), max=float(said["ref_max_score"]), how=how, versions=versions
        )
    except (TypeError, ValueError):
        raise UserError(
            f"{flat.path}: its attributes ref_min_score, ref_max_score or ref_versions make no sense"
        ) from None


def _exported(flat: Flat, name: str) -> Exported | None:
    """Return the dataset of this package that the file is an export of."""
    if (metadata := found_in(flat, flat.path)) is None:
        return None
    return Exported(metadata, lambda: tables(flat, _read(flat, name).experience, flat["scores"], flat["labels"]))


def _read(flat: Flat, name: str, column: str | None = None) -> Recorded:
    flat.need(*_NEEDED)
    if not {"timeouts", "next_observations"} & flat.names:
        raise UserError(
            f"{flat.path} lacks timeouts and next_observations, and nothing else says where time ran out: add an array "
            "timeouts (M,), of zeros if terminals end every episode"
        )
    arrays = flat.read(_NEEDED, _OPTIONAL)
    count = len(arrays["observations"])
    observation, terminal = arrays["observations"], arrays["terminals"]
    following = arrays.get("next_observations")
    end = marked = terminal | arrays.get("timeouts", np.zeros(count, np.bool_))
    unmarked = 0
    if following is None:
        end = np.append(marked[:-1], True)
    else:
        end, unmarked = ends_by_successors(observation, following, marked, flat.path, all="timeouts" in arrays)
    check_numbers(flat, end)
    success, goes_on = flat.solved(arrays), False
    bare, reason = np.zeros(count, np.bool_), RESET
    if following is None:
        bare, reason = end & ~terminal, _LOST
    elif resets_itself(observation, following, marked & ~terminal):
        bare = end & ~terminal
        goes_on = begins_with_resets(arrays["rewards"], marked)
        following = _replaced(following, bare, observation)
    rows = Rows(
        observation,
        arrays["actions"],
        arrays["rewards"],
        end=end,
        terminal=terminal,
        bare=bare,
        following=following,
        success=success,
    )
    notes: dict[str, JsonValue] = {
        "rewards": True,
        "success": success is not None,
        "rows_without_successor_dropped": int(rows.bare.sum()),
        "episodes_ended_by_next_observations": unmarked,
        "final_observation_of_terminated": "next_observations" if following is not None else "the last observation",
    }
    notes |= {**report(rows, {reason: rows.bare}), **({GOES_ON: int(marked[:-1].sum())} if goes_on else {})}
    return recorded(rows, str(flat.path), name, notes, flat.feedback(column))


def _replaced(
    following: NDArray[np.float32], bare: NDArray[np.bool_], observation: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return what follows the rows (M, O), of bare ones their own observation."""
    return gathered(np.where(bare[rows, None], observation[rows], following[rows]) for rows in slices(len(observation)))


D4RL = Reader(
    name="d4rl",
    reads="D4RL's .hdf5 (observations, actions, rewards, terminals, timeouts or next_observations)",
    recognises=_is_d4rl,
    open=_source,
    example="hopper_medium-v2.hdf5",
)
