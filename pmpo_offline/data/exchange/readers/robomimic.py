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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from pmpo_offline.data.exchange.exported import Tables, tables
from pmpo_offline.data.exchange.forms.columns import split_named
from pmpo_offline.data.exchange.readers.arrays import Kind, checked, flags
from pmpo_offline.data.exchange.readers.episodes import Rows, recorded, report
from pmpo_offline.data.exchange.readers.feedback import meaning_of
from pmpo_offline.data.exchange.readers.flat import LABELS, Flat, opened
from pmpo_offline.data.exchange.readers.source import (
    Candidate,
    Environment,
    Reader,
    Recorded,
    Source,
    exported_in,
    of_arrays,
)
from pmpo_offline.data.mapping import Spill
from pmpo_offline.runtime import progress
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
    exported = exported_in(given.flat, lambda: _tables(given.flat))
    found = None if exported else _environment(given.flat)
    environment = Environment(f"robosuite/{found['env_name']}") if found else None
    return of_arrays("robomimic", given, _read, packages=("h5py",), environment=environment, exported=exported)


def _tables(flat: Flat) -> Tables:
    demos = _demos(flat, ("scores", "labels"))
    experience = recorded(demos.rows(success=None), str(flat.path), flat.path.stem, {}).experience
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
    unused: list[str]
    """Names of arrays in the first episode that were not read."""
    solved: NDArray[np.bool_] | None
    """(E,) whether the task was solved, by `success` of the episodes; None if they have none."""

    @property
    def last(self) -> NDArray[np.int64]:
        """The last row of each episode."""
        return np.cumsum(self.length) - 1

    def rows(self, success: NDArray[np.bool_] | None) -> Rows:
        """Return the rows, given at which ones (M,) the task was solved, None if that is unknown."""
        end = np.zeros(len(self.arrays["rewards"]), np.bool_)
        end[self.last] = True
        solved = end
        if success is not None:
            start = self.last + 1 - self.length
            solved = np.repeat(np.logical_or.reduceat(success, start), self.length)
        terminal = end & (self.arrays["dones"] != 0) & solved
        final = self.arrays.get("next_obs")
        bare = end & ~terminal if final is None else np.zeros(len(end), np.bool_)
        return Rows(
            self.arrays["obs"],
            self.arrays["actions"],
            self.arrays["rewards"],
            end=end,
            terminal=terminal,
            bare=bare,
            final=final,
            success=success,
        )


def _demos(flat: Flat, more: tuple[str, ...] = ()) -> _Demos:
    """Read all episodes in the order of their numbers, with `more` arrays of a value a step."""
    numbers = _numbers(flat)
    first = f"data/demo_{numbers[0]}"
    names = sorted(name.removeprefix(f"{first}/obs/") for name in flat.names if name.startswith(f"{first}/obs/"))
    if not names:
        raise UserError(
            f"{flat.path} holds no observations: extract them from the states with robomimic's "
            "dataset_states_to_obs.py, and import what it writes"
        )
    parts = {name: Spill() for name in ("obs", "next_obs", *_KINDS, *more)}
    success: list[Any] = []
    with opened(flat) as file:
        shapes = {name: file[f"{first}/obs/{name}"].shape for name in names}
        widths = {name: int(np.prod(shape[1:])) for name, shape in shapes.items() if len(shape) <= 2}
        if not widths:
            raise UserError(f"{flat.path} holds images only: learners here read vectors of numbers")
        has_next = f"{first}/next_obs/{next(iter(widths))}" in flat.names
        for number in progress.counted(numbers, "read episodes", len(numbers)):
            demo = file[f"data/demo_{number}"]
            if not len(demo["actions"]):
                raise UserError(f"{flat.path}: demo_{number} has no steps: leave it out")
            if (solved := _solved(demo)) is not None:
                success.append(solved)
            for name, values in parts.items():
                if name == "obs" or (name == "next_obs" and has_next):
                    values.append(_joined(demo, name, widths, slice(None) if name == "obs" else slice(-1, None)))
                elif name in demo and name != "next_obs":
                    values.append(demo[name][()])
                elif name in demo.attrs:
                    values.append(np.repeat(np.asarray(demo.attrs[name]).reshape(1), len(demo["actions"])))
                elif name in ("rewards", "dones"):
                    raise UserError(
                        f"{flat.path}: demo_{number} lacks {name}: write them with robomimic's dataset_states_to_obs.py"
                    )
                elif name != "next_obs":
                    raise unknown("column", name, [*demo, *(key for key in flat.names if key.startswith(_MASK))])
        joined = {name: values.joined() for name, values in parts.items() if values.lengths}
    matrices: dict[str, Kind] = {name: "matrix" for name in ("obs", "next_obs") if name in joined}
    joined |= checked(joined, {**matrices, **_KINDS}, flat.path)
    length = np.array(parts["actions"].lengths)
    for name in ("obs", "rewards", "dones", *more):
        if (wrong := np.array(parts[name].lengths) != length).any():
            number = numbers[int(wrong.argmax())]
            raise UserError(f"{flat.path}: demo_{number} has other numbers of {name} and actions")
    images = [name for name in names if name not in widths]
    inside = {name.removeprefix(f"{first}/") for name in flat.names if name.startswith(f"{first}/")}
    inside |= _attributes(flat, first)
    unused = sorted(
        name for name in inside - {*_KINDS, *more, "success"} if name.partition("/")[0] not in ("obs", "next_obs")
    )
    if 0 < len(success) < len(numbers):
        raise UserError(f"{flat.path}: only {len(success)} of {len(numbers)} episodes say whether they are a success")
    known = flags(np.array(success), f"{flat.path}: success") if success else None
    return _Demos(joined, length, np.array(numbers), widths, images, unused, known)


def _solved(demo: h5py.Group) -> Any:
    """Return the attribute success of an episode, or the greatest value of its array of that name; None if neither."""
    if "success" in demo.attrs or "success" not in demo:
        return demo.attrs.get("success")
    return np.max(demo["success"][()])


def _attributes(flat: Flat, demo: str) -> set[str]:
    """Return the names of the attributes of an episode, but for those that robomimic itself writes."""
    with opened(flat) as file:
        return {*file[demo].attrs} - {"num_samples", "model_file", "ep_meta"}


def _numbers(flat: Flat) -> list[int]:
    return sorted(int(found[1]) for name in flat.names if (found := _DEMO.fullmatch(name)))


def _joined(demo: h5py.Group, name: str, widths: Mapping[str, int], rows: slice) -> NDArray[Any]:
    found = [np.asarray(demo[name][part][rows]) for part in widths]
    return np.concatenate([part.reshape(len(part), -1) for part in found], axis=1)


def _read(flat: Flat, name: str, column: str | None) -> Recorded:
    held = {each.rpartition("/")[2] for each in flat.names} | _attributes(flat, f"data/demo_{_numbers(flat)[0]}")
    wanted = next((label for label in LABELS if label in held), None) if column is None else column
    by_mask = bool(wanted) and str(wanted).startswith(_MASK)
    demos = _demos(flat, (wanted,) if wanted and not by_mask else ())
    rewards = demos.arrays["rewards"]
    shaped = (_environment(flat) or {}).get("env_kwargs", {}).get("reward_shaping")
    is_sign = bool(np.isin(rewards, (0, 1)).all())
    known = demos.solved is not None or (is_sign and (shaped is False or bool(rewards.any())))
    solved = rewards == 1 if demos.solved is None else np.repeat(demos.solved, demos.length)
    rows = demos.rows(solved if known else None)
    members = dict(_masks(flat, demos.numbers))
    feedback = None
    if by_mask:
        if wanted not in members:
            raise unknown("mask", str(wanted), members)
        feedback = (str(wanted), np.repeat(members[str(wanted)], demos.length))
    elif wanted:
        feedback = (wanted, demos.arrays[wanted])
    telling = [mask for mask in members if split_named(mask) == "test" or meaning_of(mask.removeprefix(_MASK))]
    masks = [mask for mask in telling if mask != wanted]
    notes: dict[str, JsonValue] = {
        "rewards": True,
        "success": known,
        "observation_parts": dict(demos.parts),
        "masks": {mask: int(inside.sum()) for mask, inside in members.items()},
        **({"images": {image: f"data/demo_*/obs/{image}" for image in demos.images}} if demos.images else {}),
        **report(rows, {_LOST: rows.bare}, [*demos.unused, *masks]),
    }
    read = recorded(rows, str(flat.path), name, notes, feedback)
    kept = np.arange(len(demos.numbers)) if read.numbers is None else read.numbers
    return _with_behaviors(read, members, kept, demos.numbers)


def _masks(flat: Flat, numbers: NDArray[np.int64]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield (mask/<name>, (E,) Booleans) of every mask."""
    for mask in sorted(name for name in flat.names if name.startswith(_MASK)):
        named = [demo.decode() if isinstance(demo, bytes) else str(demo) for demo in flat[mask].tolist()]
        yield mask, np.isin(numbers, [int(demo.rpartition("_")[2]) for demo in named])


def _with_behaviors(
    read: Recorded, members: Mapping[str, NDArray[np.bool_]], kept: NDArray[np.int64], numbers: NDArray[np.int64]
) -> Recorded:
    """Return the episodes with the masks that each is in as its behaviour, and the number in its name."""
    behaviors = {mask.removeprefix(_MASK): inside for mask, inside in members.items()}
    behaviors = {mask: inside for mask, inside in behaviors.items() if not _SPLITS.fullmatch(mask)}
    usual = read.experience.behavior
    named = ["+".join(mask for mask, inside in behaviors.items() if inside[index]) for index in kept.tolist()]
    behavior = np.array([name or str(usual[place]) for place, name in enumerate(named)])
    return replace(read, experience=replace(read.experience, behavior=behavior), numbers=numbers[kept])


ROBOMIMIC = Reader(
    name="robomimic",
    reads="robomimic's .hdf5 (data/demo_0/obs, actions, rewards, dones; masks are behaviours)",
    recognises=_is_robomimic,
    open=_source,
    example="low_dim_v15.hdf5",
)
