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
from collections.abc import Sequence
from dataclasses import replace
from itertools import count, takewhile
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from pmpo_offline.data.exchange.exported import Tables, tables
from pmpo_offline.data.exchange.readers.arrays import Kind, by_row, checked
from pmpo_offline.data.exchange.readers.episodes import LOST, Rows, cut, joined_episodes, recorded, report
from pmpo_offline.data.exchange.readers.flat import Flat, agreed, feedback_columns, readable
from pmpo_offline.data.exchange.readers.source import Candidate, Reader, Recorded, Source, exported_in, of_arrays
from pmpo_offline.runtime.errors import UserError

_KINDS: dict[str, Kind] = {"observations": "matrix", "actions": "actions", "rewards": "vector"}


def _is_d3rlpy(given: Candidate) -> bool:
    return len(given.files) == 1 and given.path.suffix in (".h5", ".hdf5") and given.has("num_episodes", "columns")


def _source(given: Candidate) -> Source:
    exported = exported_in(given.flat, _tables)
    return of_arrays("d3rlpy", given, _read, packages=("h5py",), exported=exported)


def _tables(flat: Flat) -> Tables:
    rows, _ = _rows(flat)
    whole = replace(rows, bare=np.zeros(len(rows.end), np.bool_))
    return tables(flat, cut(whole, str(flat.path), flat.path.stem), flat["scores"], flat["labels"])


def _read(flat: Flat, name: str, column: str | None) -> Recorded:
    known = {found[1] for name in flat.names if (found := re.fullmatch(r"(.*?)(?:_\d+)+", name))}  # of each episode
    labels = [label for label in feedback_columns(column, known) if label in known]
    rows, arrays = _rows(flat, labels)
    feedback = agreed({label: arrays[label] for label in labels}, flat.path) or flat.feedback(column)
    notes: dict[str, JsonValue] = {
        "final_observation_of_terminated": "the last observation",
        **report(rows, {LOST: rows.bare}, sorted(known - {*_KINDS, "terminated", *labels})),
    }
    return recorded(rows, str(flat.path), name, notes, feedback)


def _rows(flat: Flat, labels: Sequence[str] = ()) -> tuple[Rows, dict[str, NDArray[Any]]]:
    """Return the rows, and the arrays of labels (M,), of which an episode has one a step or one."""

    def read(file: h5py.File, place: int, name: str) -> NDArray[Any]:
        values = _part(file, f"{name}_{place}")
        return by_row(values, np.array([len(file[f"actions_{place}"]) - 1]), name) if name in labels else values

    with readable(flat.path):
        episodes = [f"episode {place}" for place in range(int(flat["num_episodes"]))]
    joined, length = joined_episodes(flat, episodes, ["actions", *_KINDS, *labels], ["terminated"], read)
    arrays = checked(joined, _KINDS, flat.path)
    last = np.cumsum(length) - 1
    end, terminal = np.zeros((2, len(arrays["rewards"])), np.bool_)
    end[last], terminal[last] = True, joined["terminated"]
    rows = Rows(
        arrays["observations"], arrays["actions"], arrays["rewards"], end=end, terminal=terminal, bare=end & ~terminal
    )
    return rows, joined


def _part(file: h5py.File, name: str) -> NDArray[Any]:
    """Return an array of an episode, a single value as an array of one; observations of several sensors are joined."""
    if name in file:
        return np.atleast_1d(file[name][()])
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
