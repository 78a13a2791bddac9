"""Minari data sets: a folder with data/metadata.json and episodes of T actions and T+1 observations.

HDF5      main_data.hdf5, a group `episode_<i>` each
Arrow     <i>/*.arrow (or *.parquet), a folder each of T+1 rows, the last one padded but for its observation

Both are read here and not through Minari, which takes an Arrow episode of more than 32,767 steps for several and gives
wrong rows (as of 0.5.4), and would make the environment that the metadata name, which runs what they say. The last
observation of an episode is its final observation. `success`, an attribute of the episodes or an info of their steps
(not of the reset before them), is taken over, as are the attributes `behavior` and `seed`, and the info or attribute
`label`, or the one that is named, as feedback; the others are reported.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from pmpo_offline.data import Experience, hdf5
from pmpo_offline.data.exchange.exported import origin
from pmpo_offline.data.exchange.readers import minari_folder
from pmpo_offline.data.exchange.readers.arrays import flags, floats
from pmpo_offline.data.exchange.readers.episodes import UNKNOWN_SEED
from pmpo_offline.data.exchange.readers.feedback import feedback_of_steps, parsed
from pmpo_offline.data.exchange.readers.flat import SOLVED
from pmpo_offline.data.exchange.readers.minari_files import METADATA, Episode, find, open_storage
from pmpo_offline.data.exchange.readers.source import Candidate, Environment, Reader, Recorded, Source, exported_to
from pmpo_offline.data.exchange.readers.spaces import Leaf, leaves
from pmpo_offline.data.schema import References
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.files import finite, from_json

_ATTRIBUTES = {"id", "total_steps", "seed", "options", "success", "behavior"}
"""What Minari and this package write as attributes of episodes."""
_NEEDED = ("observation_space", "action_space", "total_episodes", "data_format")


_SCHEME = "minari:"


def _is_minari(given: Candidate) -> bool:
    return given.name.startswith(_SCHEME) or (given.path.is_dir() and minari_folder(given.path) is not None)


def _source(given: Candidate) -> Source:
    """Return the data set as a source; `UserError` where its metadata are damaged or say too little.

    An export of this package has in a file of its own what it is, and comes back with its labels unless something was
    changed in it.
    """
    is_id = given.name.startswith(_SCHEME)
    folder = find(given.name.removeprefix(_SCHEME)) if is_id else minari_folder(given.path) or given.path
    said = _metadata(folder)
    name = str(said.get("dataset_id") or folder.absolute().parent.name)
    ours = origin(folder.parent)
    knows_success = ours is None or ours.settings.get("success") is not False
    return Source(
        format="minari",
        name=name,
        files={path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()},
        read=lambda column=None: _read(folder, said, knows_success, column),
        takes_column=True,
        exported=exported_to(folder.parent, hdf5.read) if ours else None,
        packages=("minari", "gymnasium", "h5py", "pyarrow"),
        task=ours.task if ours else None,
        environment=_environment(said.get("env_spec")),
        references=ours.references if ours else _references(said, name),
        licence=str(said.get("licence") or said.get("license") or "unknown"),
        author=_names(said.get("author")),
    )


def _metadata(folder: Path) -> dict[str, Any]:
    path = folder / METADATA
    try:
        said = from_json(path.read_bytes())
        if not isinstance(said, dict):
            raise ValueError("it holds no JSON object")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}; get the data set again") from None
    if missing := [key for key in _NEEDED if key not in said]:
        raise UserError(f"{path} lacks {', '.join(missing)}: write the data set again with Minari 0.5 or later")
    return said


def _references(said: dict[str, Any], name: str) -> References | None:
    try:
        low, high = float(said["ref_min_score"]), float(said["ref_max_score"])
    except (KeyError, TypeError, ValueError):
        return None
    return References(min=low, max=high, how=f"ref_min_score and ref_max_score of {name}")


def _environment(spec: Any) -> Environment | None:
    """Return what the specification says; the environment is never made."""
    try:
        said = from_json(spec)
        plain = not said.get("kwargs") and not said.get("additional_wrappers")
        return Environment(str(said["id"]), plain, said.get("max_episode_steps"))
    except (TypeError, ValueError, KeyError, AttributeError):
        return None


def _space(said: dict[str, Any], key: str, folder: Path, *, acts: bool = False) -> list[Leaf]:
    # Minari and Gymnasium take a second to import and only this reader needs them.
    from minari.serialization import deserialize_space

    try:
        space = deserialize_space(said[key])
    except (KeyError, TypeError, ValueError, AssertionError, NotImplementedError):
        raise UserError(
            f"{folder / METADATA}: {key} is of a kind that Minari itself cannot read: {str(said[key])[:80]}"
        ) from None
    return leaves(space, key, acts=acts)


def _read(folder: Path, said: dict[str, Any], knows_success: bool, name: str | None) -> Recorded:
    seen, acted = _space(said, "observation_space", folder), _space(said, "action_space", folder, acts=True)
    low, high = (np.concatenate([getattr(leaf, name) for leaf in acted]) for name in ("low", "high"))
    count = said["total_episodes"]
    if not isinstance(count, int) or count < 1:
        raise UserError(f"{folder}: total_episodes is {count!r}: it holds no episodes")
    feedback: list[NDArray[Any]] = []
    infos: set[str] = set()
    known = knows_success

    def episodes() -> Iterator[Experience]:
        nonlocal known, feedback
        with open_storage(folder, str(said["data_format"])) as episode_of:
            for index in progress.counted(range(count), "read episodes", count):
                episode = episode_of(index)
                where = f"{folder}: {episode.where}"
                observation, action, reward = _arrays(episode, seen, acted, where)
                _check_within(action, low, high, f"{where}: actions")
                success = _success(episode, len(reward), where)
                feedback += _feedback(episode, len(reward), name, where)
                known &= success is not None
                if not index:
                    infos.update(episode.infos(), (f"episodes/{key}" for key in episode.attributes() - _ATTRIBUTES))
                yield Experience(
                    observation=observation[:-1],
                    action=action,
                    reward=reward,
                    length=np.array([len(reward)], np.int64),
                    success=np.array([bool(success)]),
                    terminated=np.array([_terminated(episode, len(reward), where)]),
                    final_observation=observation[-1:],
                    behavior=np.array([str(episode.attribute("behavior") or said.get("algorithm_name") or "unknown")]),
                    seed=np.array([_seed(episode.attribute("seed"))], np.int64),
                )

    experience = Experience.concatenate(episodes())
    choices = acted[0].choices
    bounds = {"action_low_high": finite([low.tolist(), high.tolist()])} if choices is None else {"actions": choices}
    notes: dict[str, JsonValue] = {"rewards": True, "success": known, **bounds}
    wanted = _plain(name)
    if unused := sorted(
        info if info.startswith("episodes/") else f"infos/{info}"
        for info in infos - {*SOLVED, wanted, f"episodes/{wanted}"}
    ):
        notes["report"] = {"columns_not_used": [*unused]}
    if not feedback:
        return Recorded(experience, notes)
    if len(feedback) != count:
        raise UserError(
            f"{folder}: only {len(feedback)} of {count} episodes have an info {wanted}: write it in all of them"
        )
    info = f"infos/{wanted}"
    found, note = feedback_of_steps(info, np.concatenate(feedback), experience.length, folder)
    return Recorded(experience, {**notes, "feedback": note}, found)


def _feedback(episode: Episode, steps: int, name: str | None, where: str) -> list[NDArray[Any]]:
    """Return the info or the attribute that is feedback, of the steps (T,).

    The list is empty where there is none and none is named.
    """
    wanted = _plain(name)
    try:
        return [_of_steps(episode.array(("infos", *wanted.split("/"))), steps, f"{where}: infos {wanted}")]
    except KeyError:
        if (attribute := episode.attribute(wanted)) is not None:
            return [_of_steps(np.asarray(attribute), steps, f"{where}: attribute {wanted}")]
        if name:
            raise UserError(f"{where} has no info {wanted}: choose another --score") from None
        return []


def _plain(name: str | None) -> str:
    """Return the name of an info or an attribute of feedback, which `--score` may give with what it is of."""
    return (name or "label").removeprefix("infos/").removeprefix("episodes/")


def _of_steps(values: NDArray[Any], steps: int, where: str) -> NDArray[Any]:
    """Return an info of the steps (T,): without that of the reset, if T+1 are stored; one value is of all of them."""
    if values.size == 1:
        return np.repeat(values.reshape(1), steps)
    if not values.ndim or len(values) - steps not in (0, 1):
        raise UserError(f"{where} has {values.size} values and the episode {steps} steps: write T+1, or one")
    return values[-steps:]


def _arrays(
    episode: Episode, seen: list[Leaf], acted: list[Leaf], where: str
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return observations (T+1, O), actions (T, A) and rewards (T,) of an episode."""
    found = {}
    for name, parts in (("observations", seen), ("actions", acted)):
        flat = []
        for leaf in parts:
            here = f"{where}: {'/'.join(map(str, (name, *leaf.path)))}"
            stored = _stored(episode, (name, *leaf.path), here)
            if len(stored) and stored.shape[1:] != leaf.shape and stored[0].size == np.prod(leaf.shape):
                stored = stored.reshape(len(stored), *leaf.shape)  # Arrow stores rows of numbers
            flat.append(leaf.flatten(stored, here))
        if len({len(part) for part in flat}) > 1:
            raise UserError(f"{where}: the parts of {name} are of unequal lengths")
        found[name] = flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1)
    reward = floats(_stored(episode, ("rewards",), f"{where}: rewards"), f"{where}: rewards").reshape(-1)
    steps = len(found["actions"])
    if not steps or len(found["observations"]) != steps + 1 or len(reward) != steps:
        raise UserError(
            f"{where} has {len(found['observations'])} observations, {steps} actions and {len(reward)} rewards: "
            "expected T+1, T and T, with T of 1 or more"
        )
    return found["observations"], found["actions"], reward


def _stored(episode: Episode, path: tuple[str | int, ...], here: str) -> NDArray[Any]:
    try:
        return np.atleast_1d(episode.array(path))
    except KeyError:
        raise UserError(f"{here} is missing: the data set is incomplete, get it again") from None


def _terminated(episode: Episode, steps: int, where: str) -> bool:
    """Return whether the task ended the episode; `UserError` if it, or time, did so before the last step."""
    ended = []
    for name in ("terminations", "truncations"):
        here = f"{where}: {name}"
        ends = flags(_stored(episode, (name,), here), here)
        if len(ends) != steps or ends[:-1].any():
            problem = f"has {len(ends)} of {steps} flags" if len(ends) != steps else f"ends in step {ends.argmax()}"
            raise UserError(f"{here} {problem}, and the episode has {steps} steps: split it there and import again")
        ended.append(bool(ends[-1]))
    return ended[0]


def _success(episode: Episode, steps: int, where: str) -> bool | None:
    """Return whether the episode was solved, by its attribute or at any of its steps; None where it does not say."""
    if (attribute := episode.attribute("success")) is not None:
        return _any_true(np.reshape(attribute, 1), f"{where}: success")
    found: dict[str, bool | None] = {}
    for name in SOLVED:
        with suppress(KeyError):
            of = f"{where}: infos {name}"
            found[name] = _any_true(_of_steps(episode.array(("infos", name)), steps, of), of)
    if len(set(found.values())) > 1:
        raise UserError(f"{where}: infos {' and '.join(found)} contradict each other: leave one of them out")
    return next(iter(found.values()), None)


def _any_true(values: NDArray[Any], where: str) -> bool | None:
    """Return whether any of these flags is true, None where none of them says anything."""
    if values.dtype.kind == "b":
        return bool(values.any())
    said, are_flags = parsed(values, where)
    if not are_flags:
        raise UserError(f"{where}: expected true or false, found {values.reshape(-1)[0]}")
    return None if np.isnan(said).all() else bool((said == 1).any())


def _check_within(
    action: NDArray[np.float32], low: NDArray[np.floating], high: NDArray[np.floating], where: str
) -> None:
    """Raise `UserError` for the first row of actions (n, A) outside its own space's bounds (A,)."""
    slack = 1e-4 * np.maximum(1.0, np.where(np.isfinite(high - low), high - low, 1.0))
    outside = ((action < low - slack) | (action > high + slack)).any(axis=1)
    if outside.any():
        raise UserError(
            f"{where}: row {int(outside.argmax())} is outside the action space ({int(outside.sum())} rows in all): "
            "clip them to what the environment applied and import again"
        )


def _names(author: Any) -> str:
    return ", ".join(sorted(map(str, [author] if isinstance(author, str) else author or []))) or "unknown"


def _seed(value: Any) -> int:
    """Return a recorded seed; Minari draws some of 64 bits, which the schema has no place for."""
    try:
        seed = int(value)
    except (TypeError, ValueError):
        return UNKNOWN_SEED
    return seed if 0 <= seed < 2**63 else UNKNOWN_SEED


MINARI = Reader(
    name="minari",
    reads="minari:ID (local, else downloaded) or the folder of a Minari data set",
    recognises=_is_minari,
    open=_source,
    example="minari:mujoco/hopper/medium-v0",
)
