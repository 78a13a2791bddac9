"""d3rlpy's ReplayBuffer as its own `dump` writes it (version 2.1), a group of arrays an episode in one .h5 file.

columns, num_episodes, version
observations_<e> (T, O), actions_<e> (T, A), rewards_<e> (T, 1)     episode e; the observations of several sensors are
terminated_<e> ()                                                   observations_<e>_<i>, joined in order

d3rlpy has no place for the observation after an episode's last step: after a termination nothing is valued there and
the last observation takes its place; of an episode that ran out of time the last step is dropped, as d3rlpy itself
never draws it. Exports of this package have the final observations, and lose nothing.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import count, takewhile
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from pmpo_offline.data.exchange.exported import Tables, tables
from pmpo_offline.data.exchange.readers.arrays import Kind, by_row, checked
from pmpo_offline.data.exchange.readers.episodes import LOST, Rows, recorded, report
from pmpo_offline.data.exchange.readers.flat import LABELS, Flat, opened
from pmpo_offline.data.exchange.readers.source import Candidate, Reader, Recorded, Source, exported_in, of_arrays
from pmpo_offline.data.mapping import Spill
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import UserError

_KINDS: dict[str, Kind] = {"observations": "matrix", "actions": "actions", "rewards": "vector"}


def _is_d3rlpy(given: Candidate) -> bool:
    return len(given.files) == 1 and given.path.suffix in (".h5", ".hdf5") and given.has("num_episodes", "columns")


def _source(given: Candidate) -> Source:
    exported = exported_in(given.flat, lambda: _tables(given.flat))
    return of_arrays("d3rlpy", given, _read, packages=("h5py",), exported=exported)


def _tables(flat: Flat) -> Tables:
    rows = _rows(flat)
    whole = replace(rows, bare=np.zeros(len(rows.reward), np.bool_))
    return tables(flat, recorded(whole, str(flat.path), flat.path.stem, {}).experience, flat["scores"], flat["labels"])


def _read(flat: Flat, name: str, column: str | None) -> Recorded:
    rows = _rows(flat)
    known = _columns(flat)
    wanted = next((label for label in LABELS if label in known), None) if column is None else column
    feedback = (wanted, _spoken(flat, wanted, rows.last)) if wanted in known else flat.feedback(column)
    notes: dict[str, JsonValue] = {
        "rewards": True,
        "success": False,
        "final_observation_of_terminated": "the last observation",
        **report(rows, {LOST: rows.bare}, sorted(known - {*_KINDS, "terminated", wanted})),
    }
    return recorded(rows, str(flat.path), name, notes, feedback)


def _columns(flat: Flat) -> set[str]:
    """Return the names of the arrays that each episode has."""
    return {found[1] for name in flat.names if (found := re.fullmatch(r"(.*?)(?:_\d+)+", name))}


def _spoken(flat: Flat, name: str, last: NDArray[np.int64]) -> NDArray[Any]:
    """Return the feedback (M,) in an array of each episode, of its steps or of all of it."""
    with opened(flat) as file:
        found = [np.atleast_1d(file[f"{name}_{index}"][()]) for index in range(len(last))]
    length = np.diff(last, prepend=-1)
    return np.concatenate([by_row(own, np.array([n - 1]), name) for own, n in zip(found, length, strict=True)])


def _rows(flat: Flat) -> Rows:
    parts = {name: Spill() for name in _KINDS}
    with opened(flat) as file:
        episodes = int(file["num_episodes"][()])
        terminated = np.zeros(episodes, np.bool_)
        for index in progress.counted(range(episodes), "read episodes", episodes):
            for name, found in parts.items():
                found.append(_part(file, f"{name}_{index}"))
            if not parts["actions"].lengths[-1]:
                raise UserError(f"{flat.path}: episode {index} has no steps: leave it out and number the others anew")
            terminated[index] = bool(file[f"terminated_{index}"][()])
        joined = {name: found.joined() for name, found in parts.items()}
    arrays = checked(joined, _KINDS, flat.path)
    last = np.cumsum(parts["actions"].lengths) - 1
    end, terminal = np.zeros((2, len(arrays["rewards"])), np.bool_)
    end[last], terminal[last] = True, terminated
    return Rows(
        arrays["observations"], arrays["actions"], arrays["rewards"], end=end, terminal=terminal, bare=end & ~terminal
    )


def _part(file: h5py.File, name: str) -> NDArray[Any]:
    """Return an array of an episode; observations of several sensors are joined."""
    if name in file:
        values: NDArray[Any] = file[name][()]
        return values
    sensors = [file[f"{name}_{place}"][()] for place in takewhile(lambda place: f"{name}_{place}" in file, count())]
    if not sensors:
        raise UserError(f"{file.filename} lacks {name}: it is incomplete, write it again")
    if images := [sensor.shape for sensor in sensors if sensor.ndim != 2]:
        raise UserError(f"{file.filename}: {name} has a sensor of shape {images[0]}, and images are not supported")
    return np.concatenate(sensors, axis=1)


D3RLPY = Reader(
    name="d3rlpy",
    reads="the .h5 that d3rlpy's `ReplayBuffer.dump` writes",
    recognises=_is_d3rlpy,
    open=_source,
    example="cartpole.h5",
)
