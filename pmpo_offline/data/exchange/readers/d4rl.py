"""HDF5 files in D4RL's layout: flat arrays, one row a step, episodes one after the other.

observations (M, O), actions (M, A), rewards (M,), terminals (M,): the task ended the episode
timeouts (M,)             time ran out
next_observations (M, O)  where given, it decides: each episode's final observation comes from it, and a row whose
                          successor is not the row after it ends an episode, marked or not (as IQL's reader has it)
infos/success (M,)        where given, an episode that was solved at any step is a success

timeouts may be missing where there are next_observations. Without those, the last row of an episode that ran out of
time is dropped, because what followed it is lost (see `episodes`). All other infos and metadata are left alone.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pmpo_offline.data.exchange import d4rl_scores
from pmpo_offline.data.exchange.readers.episodes import cut
from pmpo_offline.data.exchange.readers.flat import Flat, Kind
from pmpo_offline.data.exchange.readers.source import Environment, Recorded, Source
from pmpo_offline.data.schema import References
from pmpo_offline.runtime.errors import UserError

_NEEDED: dict[str, Kind] = {
    "observations": "matrix",
    "actions": "actions",
    "rewards": "vector",
    "terminals": "flags",
}
_OPTIONAL: dict[str, Kind] = {"timeouts": "flags", "next_observations": "matrix", "infos/success": "flags"}
_LICENCE = "CC-BY-4.0"  # of D4RL's data sets
_OURS = {"id", "task", "label", "licence"}
"""Attributes that all exports of this package have."""


def source(flat: Flat) -> Source:
    """Return the file as a source; a name that D4RL knows brings its environment and reference scores.

    Exports of this package say in attributes what they are of: whatever they are called, they are none of D4RL's.
    """
    # The files are called hopper_medium-v2.hdf5, the data sets hopper-medium-v2.
    name = flat.path.stem.replace("_", "-")
    said = flat.attributes
    ours = said.keys() >= _OURS
    environment = None if ours else d4rl_scores.environment(name)
    return Source(
        format="d4rl",
        name=name,
        files={flat.path.name: flat.path},
        read=lambda: _read(flat, name),
        packages=("h5py",),
        task=str(said["task"]) if ours else None,
        environment=Environment(environment) if environment else None,
        references=_told(flat) if ours else d4rl_scores.references(name),
        licence=_LICENCE if environment else str(said.get("licence", "unknown")),
        author="D4RL (arXiv 2004.07219)" if environment else "unknown",
    )


def _told(flat: Flat) -> References | None:
    said = flat.attributes
    if "ref_min_score" not in said or "ref_max_score" not in said:
        return None
    how = f"of {said.get('id', 'the dataset')}, from which {flat.path.name} was exported"
    try:
        versions = json.loads(said.get("ref_versions", "{}"))
        return References(
            min=float(said["ref_min_score"]), max=float(said["ref_max_score"]), how=how, versions=versions
        )
    except (TypeError, ValueError):
        raise UserError(
            f"{flat.path}: its attributes ref_min_score, ref_max_score or ref_versions make no sense"
        ) from None


def _read(flat: Flat, name: str) -> Recorded:
    flat.need(*_NEEDED)
    if not {"timeouts", "next_observations"} & flat.names:
        raise UserError(
            f"{flat.path} lacks timeouts and next_observations, and nothing else says where time ran out: add an array "
            "timeouts (M,), of zeros if terminals end every episode"
        )
    given = {each: kind for each, kind in _OPTIONAL.items() if each in flat.names}
    arrays = flat.read({**_NEEDED, **given})
    rows = len(arrays["observations"])
    observation, terminal = arrays["observations"], arrays["terminals"]
    following = arrays.get("next_observations")
    marked = terminal | arrays.get("timeouts", np.zeros(rows, np.bool_))
    end = marked if following is None else marked | _seams(observation, following, flat.path)
    end[-1] = True
    bare = end & ~terminal if following is None else np.zeros(rows, np.bool_)
    experience = cut(
        str(flat.path),
        name,
        observation=observation,
        action=arrays["actions"],
        reward=arrays["rewards"],
        end=end,
        terminal=terminal,
        bare=bare,
        following=following,
        success=arrays.get("infos/success"),
    )
    notes = {
        "rewards": True,
        "success": "infos/success" in arrays,
        "rows_without_successor_dropped": rows - len(experience.reward),
        "episodes_ended_by_next_observations": int((end[:-1] & ~marked[:-1]).sum()),
        "final_observation_of_terminated": "next_observations" if following is not None else "the last observation",
    }
    return Recorded(experience, notes)


def _seams(observation: NDArray[np.float32], following: NDArray[np.float32], path: Path) -> NDArray[np.bool_]:
    """Return the rows (M,) whose successor is not the row after them."""
    if observation.shape != following.shape:
        raise UserError(
            f"{path}: observations have {observation.shape[1]} numbers and next_observations {following.shape[1]}"
        )
    seams = np.ones(len(observation), np.bool_)
    for start in range(0, len(observation) - 1, 65536):  # in parts: the differences need no second array of this size
        rows = slice(start, min(start + 65536, len(observation) - 1))
        after = observation[rows.start + 1 : rows.stop + 1]
        seams[rows] = ~np.isclose(following[rows], after, rtol=1e-5, atol=1e-6).all(axis=1)
    return seams
