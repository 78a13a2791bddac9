"""robomimic's HDF5: `data/demo_<i>` for every episode, `mask/<name>` for groups of them (its docs, v0.1 to v0.5).

data/demo_<i>/  obs/<name> (T, n)       joined in alphabetical order; images (T, h, w, c) are left out
                next_obs/<name> (T, n)  the last row is the final observation; without it the last step of an episode is
                                        dropped, but for one with a reward in its last step, which is taken as ended
                actions (T, A), rewards, dones (T,)
mask/<name>     names of episodes: those with a name such as better or okay_2 are the behaviours; train, valid and
                20_percent are no behaviours. Any mask may be the feedback (`--score mask/good`): its episodes are
                accepted, the others rejected

Rewards of robosuite's tasks are 1 where the task is solved: an episode with such a step is a success, unless env_args
say that rewards are shaped (`reward_shaping`), which leaves success unknown unless all rewards are 0 and 1; or an
attribute or array `success` of every episode says it. Labels may be an attribute of the episodes, too. `dones` marks
the end of a recording as well as success (`done_mode`), so that an episode is terminated where its last step is done
and, if success is known, solved. MG (machine-generated) and Can-Paired have this layout.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from pmpo_offline.data.exchange.exported import Tables, tables
from pmpo_offline.data.exchange.forms.columns import split_named
from pmpo_offline.data.exchange.readers.arrays import Kind, checked, solved_rows
from pmpo_offline.data.exchange.readers.episodes import Rows, cut, joined_episodes, recorded, report
from pmpo_offline.data.exchange.readers.feedback import meaning_of
from pmpo_offline.data.exchange.readers.flat import Flat, agreed, feedback_columns, opened
from pmpo_offline.data.exchange.readers.source import (
    Candidate,
    Environment,
    Reader,
    Recorded,
    Source,
    exported_in,
    of_arrays,
)
from pmpo_offline.runtime.errors import UserError, unknown
from pmpo_offline.runtime.files import from_json

_DEMO = re.compile(r"data/demo_(\d+)/actions")
_MASK = "mask/"
_SPLITS = re.compile(r"(train|valid|test)|.*_(train|valid|test)|\d+_percent(_.*)?")
"""Masks that are no behaviours."""
_KINDS: dict[str, Kind] = {"actions": "actions", "rewards": "vector", "dones": "vector"}
_LOST = "the last row of an episode without next_obs: what followed it is not in the file"


def _is_robomimic(given: Candidate) -> bool:
    if len(given.files) != 1 or given.path.suffix not in (".hdf5", ".h5"):
        return False
    return any(_DEMO.fullmatch(name) for name in given.flat.names)


def _source(given: Candidate) -> Source:
    exported = exported_in(given.flat, _tables)
    found = None if exported else _environment(given.flat)
    environment = Environment(f"robosuite/{found['env_name']}") if found else None
    return of_arrays("robomimic", given, _read, packages=("h5py",), environment=environment, exported=exported)


def _tables(flat: Flat) -> Tables:
    demos = _demos(flat, ("scores", "labels"))
    experience = cut(demos.rows(success=None), str(flat.path), flat.path.stem)
    return tables(flat, experience, demos.arrays["scores"], demos.arrays["labels"])


def _environment(flat: Flat) -> Mapping[str, Any] | None:
    """Return env_args, the environment that the episodes were recorded in; None where the file does not say."""
    with opened(flat) as file:
        try:
            said = from_json(file["data"].attrs["env_args"])
        except (KeyError, ValueError, TypeError):
            return None
    return said if isinstance(said, dict) and said.get("env_name") else None


@dataclass(frozen=True)
class _Demos:
    """Every episode's arrays, joined."""

    arrays: dict[str, NDArray[Any]]
    """obs, and the final observations in next_obs (E, O) if any; actions, rewards, dones, and what was asked."""
    length: NDArray[np.int64]
    numbers: NDArray[np.int64]
    """(E,) those in the names of the episodes."""
    parts: dict[str, int]
    """Width of each observation, in the order in which they are joined."""
    images: list[str]
    solved: NDArray[np.bool_] | None
    """(M,) whether the task was solved, by `success` of the episodes; None if they have none."""

    def rows(self, success: NDArray[np.bool_] | None) -> Rows:
        """Return the rows, given at which ones (M,) the task was solved, None if that is unknown."""
        end = np.zeros(len(self.arrays["rewards"]), np.bool_)
        end[np.cumsum(self.length) - 1] = True
        solved = end
        if success is not None:
            start = np.cumsum(self.length) - self.length
            solved = np.repeat(np.logical_or.reduceat(success, start), self.length)
        terminal = end & (self.arrays["dones"] != 0) & solved
        final = self.arrays.get("next_obs")
        return Rows(
            self.arrays["obs"],
            self.arrays["actions"],
            self.arrays["rewards"],
            end=end,
            terminal=terminal,
            bare=end & ~terminal if final is None else np.zeros(len(end), np.bool_),
            final=final,
            success=success,
            named=self.numbers,
        )


def _demos(flat: Flat, more: Sequence[str] = ()) -> _Demos:
    """Read all episodes in the order of their numbers, with `more` arrays of a value a step."""
    numbers = _numbers(flat)
    inside = _in_episode(flat, numbers[0])
    seen = sorted(name.removeprefix("obs/") for name in inside if name.startswith("obs/"))
    if not seen:
        raise UserError(
            f"{flat.path} holds no observations: extract them from the states with robomimic's "
            "dataset_states_to_obs.py, and import what it writes"
        )
    with opened(flat) as file:
        shapes = {name: file[f"data/demo_{numbers[0]}/obs/{name}"].shape for name in seen}
    widths = {name: int(np.prod(shape[1:])) for name, shape in shapes.items() if len(shape) <= 2}
    if not widths:
        raise UserError(f"{flat.path} holds images only: learners here read vectors of numbers")

    def read(file: h5py.File, place: int, name: str) -> NDArray[Any]:
        demo = file[f"data/demo_{numbers[place]}"]
        if name in ("obs", "next_obs"):
            found = [np.asarray(demo[name][part][() if name == "obs" else slice(-1, None)]) for part in widths]
            return np.concatenate([part.reshape(len(part), -1) for part in found], axis=1)
        if name == "success":
            return _solved(demo)
        if name in demo:
            values: NDArray[Any] = demo[name][()]
            return values
        if name in demo.attrs:
            return np.repeat(np.asarray(demo.attrs[name]).reshape(1), len(demo["actions"]))
        if name in _KINDS:
            raise UserError(
                f"{flat.path}: demo_{numbers[place]} lacks {name}: write them with robomimic's dataset_states_to_obs.py"
            )
        raise unknown("column", name, [*demo, *(key for key in flat.names if key.startswith(_MASK))])

    final = ["next_obs"] if f"next_obs/{next(iter(widths))}" in inside else []
    demos = [f"demo_{number}" for number in numbers]
    joined, length = joined_episodes(flat, demos, ["actions", "obs", *_KINDS, *more], ["success", *final], read)
    matrices: dict[str, Kind] = dict.fromkeys(("obs", *final), "matrix")
    solved = solved_rows(joined["success"], np.cumsum(length) - 1, f"{flat.path}: success")
    images = [name for name in seen if name not in widths]
    return _Demos(
        joined | checked(joined, {**matrices, **_KINDS}, flat.path), length, np.array(numbers), widths, images, solved
    )


def _solved(demo: h5py.Group) -> NDArray[Any]:
    """Return (1,) the attribute success of an episode, or the greatest value of its array; NaN if it has neither."""
    if "success" in demo.attrs or "success" not in demo:
        return np.reshape(demo.attrs.get("success", np.nan), 1)
    return np.reshape(np.max(demo["success"][()]), 1)


def _numbers(flat: Flat) -> list[int]:
    return sorted(int(found[1]) for name in flat.names if (found := _DEMO.fullmatch(name)))


def _in_episode(flat: Flat, number: int) -> set[str]:
    """Return the names of an episode's arrays and attributes, but for the attributes that robomimic itself writes."""
    place = f"data/demo_{number}"
    with opened(flat) as file:
        attributes = {*file[place].attrs} - {"num_samples", "model_file", "ep_meta"}
    return attributes | {name.removeprefix(f"{place}/") for name in flat.names if name.startswith(f"{place}/")}


def _read(flat: Flat, name: str, column: str | None) -> Recorded:
    inside = _in_episode(flat, _numbers(flat)[0])
    labels = feedback_columns(column, inside)
    by_mask = column is not None and column.startswith(_MASK)
    demos = _demos(flat, () if by_mask else labels)
    rewards = demos.arrays["rewards"]
    shaped = (_environment(flat) or {}).get("env_kwargs", {}).get("reward_shaping")
    is_sign = bool(np.isin(rewards, (0, 1)).all())
    known = demos.solved is not None or (is_sign and (shaped is False or bool(rewards.any())))
    solved = rewards == 1 if demos.solved is None else demos.solved
    rows = demos.rows(solved if known else None)
    members = dict(_masks(flat, demos.numbers))
    if by_mask and column not in members:
        raise unknown("mask", str(column), members)
    columns = {label: np.repeat(members[label], demos.length) if by_mask else demos.arrays[label] for label in labels}
    used = {*_KINDS, *labels, "success"}
    unused = sorted(name for name in inside - used if name.partition("/")[0] not in ("obs", "next_obs"))
    telling = [mask for mask in members if split_named(mask) == "test" or meaning_of(mask.removeprefix(_MASK))]
    notes: dict[str, JsonValue] = {
        "observation_parts": dict(demos.parts),
        "masks": {mask: int(inside.sum()) for mask, inside in members.items()},
        **({"images": {image: f"data/demo_*/obs/{image}" for image in demos.images}} if demos.images else {}),
        **report(rows, {_LOST: rows.bare}, [*unused, *(mask for mask in telling if mask != column)]),
    }
    return recorded(
        rows, str(flat.path), _behaviors(name, members, len(demos.numbers)), notes, agreed(columns, flat.path)
    )


def _masks(flat: Flat, numbers: NDArray[np.int64]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield (mask/<name>, (E,) Booleans) of every mask."""
    for mask in sorted(name for name in flat.names if name.startswith(_MASK)):
        named = [demo.decode() if isinstance(demo, bytes) else str(demo) for demo in flat[mask].tolist()]
        yield mask, np.isin(numbers, [int(demo.rpartition("_")[2]) for demo in named])


def _behaviors(name: str, members: Mapping[str, NDArray[np.bool_]], count: int) -> list[str]:
    """Return for each of the episodes the masks that it is in, the name of the data set if it is in none."""
    masks = {mask.removeprefix(_MASK): inside for mask, inside in members.items()}
    masks = {mask: inside for mask, inside in masks.items() if not _SPLITS.fullmatch(mask)}
    return ["+".join(mask for mask, inside in masks.items() if inside[place]) or name for place in range(count)]


ROBOMIMIC = Reader(
    name="robomimic",
    reads="robomimic's .hdf5 (data/demo_0/obs, actions, rewards, dones; masks are behaviours)",
    recognises=_is_robomimic,
    open=_source,
    example="low_dim_v15.hdf5",
)
