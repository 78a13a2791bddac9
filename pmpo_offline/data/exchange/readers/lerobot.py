"""LeRobot's data sets, versions 2.0 to 3.0: a folder with meta/info.json and frames in data/**.parquet.

observation.state and other numbers under observation.   joined in the order of info.json; or `state`
action (or `actions`), episode_index, frame_index
next.reward (or `reward`), next.done, next.success       where given
meta/tasks, meta/episodes (.jsonl, or .parquet in 3.0)   the task is the behaviour where there are several

A frame has no successor of its own: it is the next frame of the episode. What followed the last frame is in the data
only where `next.done` is true in the last two frames, as lerobot-eval writes them: the last one is the final
observation, and its action repeats the one before. Of all other episodes the last frame is dropped, but for those that
ended there by success (`next.success`, or `next.done` if there is no column of success), where nothing is valued after
it. Images and videos are left out; where they are is noted: of videos the file and the seconds of every episode.

Labels may be in any column of the frames or the episodes (`--score adv_ind`, RECAP's indicator of the advantage, or
`reward_label`; `label` and `adv_ind` without it); success is `next.success`, or `success`, `is_episode_successful` or
the like, in any frame or in meta/episodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import JsonValue

from pmpo_offline.data import Experience, columns
from pmpo_offline.data.exchange.exported import Tables
from pmpo_offline.data.exchange.readers.arrays import Array, Kind, checked, flags, is_nan, solved_rows, without
from pmpo_offline.data.exchange.readers.episodes import Rows, recorded, report
from pmpo_offline.data.exchange.readers.flat import LABELS, classes_in, column_blocks, named_classes, readable
from pmpo_offline.data.exchange.readers.source import Candidate, Reader, Recorded, Source, exported_to
from pmpo_offline.data.mapping import Spill, gathered, slices
from pmpo_offline.data.opening import open_parquet
from pmpo_offline.data.schema import Metadata, episodes_schema
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import UserError, unknown
from pmpo_offline.runtime.files import from_json

_INFO = "meta/info.json"
_LOST = "the last frame of an episode: what followed it is not in the data"
_ACTIONS, _REWARDS, _STATES = ("action", "actions"), ("next.reward", "reward"), ("state", "states")
_SUCCESS = ("next.success", "success", "is_success", "is_episode_successful", "episode_success", "task_success")
"""Columns of the frames or the episodes that say whether the task was solved; only the first says when."""
_CHUNK = 1000
"""Episodes a folder where the data set does not say."""
_OURS = {"index", "task_index", "timestamp", "episode_index", "frame_index"}
_ORDER = ("episode_index", "frame_index")
_ABOUT_EPISODES = {"episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index", "task_index"}
Features = Mapping[str, Mapping[str, Any]]
Frames = Mapping[str, Array]
"""Columns by name, of lists (M, n)."""


def _is_lerobot(given: Candidate) -> bool:
    return (given.path / _INFO).is_file()


def _source(given: Candidate) -> Source:
    folder = given.path
    info = _info(folder)
    exported = exported_to(folder, _tables)
    name = exported.metadata.id if exported else folder.absolute().name
    files = sorted([*folder.glob("data/**/*.parquet"), *(path for path in folder.glob("meta/**/*") if path.is_file())])
    return Source(
        format="lerobot",
        name=name,
        files={path.relative_to(folder).as_posix(): path for path in files},
        read=lambda column=None: _read(folder, info, column),
        packages=("pyarrow", "polars"),
        takes_column=True,
        exported=exported,
    )


def _info(folder: Path) -> dict[str, Any]:
    try:
        info = from_json((folder / _INFO).read_bytes())
        version = str(info["codebase_version"])
        if not isinstance(info["features"], dict):
            raise ValueError("features is no object")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / _INFO} cannot be read: {error}; get the data set again") from None
    if version.partition(".")[0] not in ("v2", "v3"):
        raise UserError(
            f"{folder} is of LeRobot's version {version}: convert it to v2.1 or v3.0 with lerobot's scripts"
        )
    return dict(info)


def _tables(folder: Path, _: Metadata) -> Tables:
    """Return the tables of an export of this package; the episodes have what frames have no place for."""
    names = ["observation.state", "action", "next.reward", "score", "label"]
    frames, episodes = _frames(folder, names), _episodes(folder)
    observation = _matrix(frames["observation.state"])
    schema = episodes_schema(observation.shape[1])
    stored = {name: episodes[name].to_arrow() for name in schema.names if name in episodes.columns}
    if episodes["success"].null_count():  # nothing is known of it
        stored["success"] = pa.array(np.zeros(len(episodes), np.bool_))
    stored |= {"start": episodes["dataset_from_index"].to_arrow(), "length": episodes["length"].to_arrow()}
    table = pa.table({name: stored[name].cast(schema.field(name).type) for name in schema.names}, schema=schema)
    length = columns.vector(table, "length").astype(np.int64)
    experience = Experience(
        observation=observation,
        action=_matrix(frames["action"]),
        reward=frames["next.reward"],
        length=length,
        success=columns.vector(table, "success"),
        terminated=columns.vector(table, "terminated"),
        seed=columns.vector(table, "seed"),
        final_observation=columns.matrix(table, "final_observation"),
        behavior=np.array(table["behavior"].to_pylist()),
    )
    steps, _ = experience.tables()
    steps = columns.replace(steps, score=frames["score"], label=frames["label"])
    return {"transitions": steps, "episodes": table}


def _frames(folder: Path, names: list[str]) -> Frames:
    """Return these columns of all frames, by episode and frame."""
    found, paths = {name: Spill() for name in (*names, *_ORDER)}, sorted(folder.glob("data/**/*.parquet"))
    if not paths:
        raise UserError(f"{folder} holds no frames in data/: get the data set again")
    for path in progress.counted(paths, "read files", len(paths)):
        with readable(path), open_parquet(path) as file:
            if not file.metadata.num_rows:
                continue
            if missing := [name for name in found if name not in file.schema_arrow.names]:
                raise UserError(f"{path} lacks {', '.join(missing)}, which meta/info.json names")
            for name, values in found.items():
                for block in column_blocks(file, name, path):
                    values.append(block)
    with readable(folder):
        frames = {name: values.joined() for name, values in found.items()}
        episode, frame = (frames[name] for name in _ORDER)
        pairs = (slice(rows.start, rows.stop + 1) for rows in slices(len(frame)))
        if all(_ascend(episode[rows], frame[rows]) for rows in pairs):
            return frames
        order = np.lexsort((frame, episode))
        return {name: gathered(values[order[rows]] for rows in slices(len(order))) for name, values in frames.items()}


def _ascend(episode: Array, frame: Array) -> bool:
    """Return whether frames are in order."""
    later, further = np.diff(episode), np.diff(frame)
    return bool(((later > 0) | (later == 0) & (further > 0)).all())


def _episodes(folder: Path) -> pl.DataFrame:
    """Return meta/episodes, a row an episode, without statistics."""
    lines, tables = folder / "meta/episodes.jsonl", sorted(folder.glob("meta/episodes/**/*.parquet"))
    if not tables and not lines.is_file():
        raise UserError(f"{folder} lacks meta/episodes: get the data set again")
    if not tables:
        with readable(lines):
            return pl.read_ndjson(lines).sort("episode_index")
    found = []
    for path in tables:
        with readable(path), open_parquet(path) as file:
            wanted = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
            found.append(pl.DataFrame(pl.from_arrow(file.read(columns=wanted))))
    with readable(folder):
        return pl.concat(found, how="vertical_relaxed").sort("episode_index")


def _describes_episodes(folder: Path) -> bool:
    return (folder / "meta/episodes.jsonl").is_file() or any(folder.glob("meta/episodes/**/*.parquet"))


def _places(episodes: pl.DataFrame, numbers: NDArray[np.int64], folder: Path) -> NDArray[np.int64]:
    """Return the rows (n,) of `_episodes` that hold these episodes (n,); `UserError` if it lacks one."""
    known = episodes["episode_index"].to_numpy()
    place = np.searchsorted(known, numbers)
    if lacking := sorted({*numbers.tolist()} - {*known.tolist()}):
        raise UserError(f"{folder} lacks episode {lacking[0]} in meta/episodes: get the data set again")
    return place


def _matrix(values: Array) -> Array:
    """Return a column of lists or numbers as (M, n)."""
    return values.reshape(len(values), -1)


def _read(folder: Path, info: dict[str, Any], column: str | None) -> Recorded:
    features: Features = info["features"]
    observed = _observations(features, folder)
    action, reward = (next((name for name in names if name in features), None) for names in (_ACTIONS, _REWARDS))
    if action is None:
        raise UserError(f"{folder} lacks action: it has {', '.join(features)}")
    described = {*_episodes(folder).columns} if _describes_episodes(folder) else set[str]()
    held = features.keys() | described
    success = next((name for name in _SUCCESS if name in held), None)
    labels = [column] if column else [name for name in LABELS if name in held]
    ends = {"next.done", success} & features.keys()
    wanted = [*observed, action, reward, *ends, *(name for name in labels if name in features), "task_index"]
    frames = _frames(folder, [name for name in dict.fromkeys(wanted) if name])
    number = frames["episode_index"]
    end = np.append(number[1:] != number[:-1], True)
    _check_order(frames, end, folder)
    done = flags(frames["next.done"], f"{folder}: next.done") if "next.done" in ends else np.zeros(len(end), np.bool_)
    solved = (
        None
        if success is None
        else solved_rows(_numbers(_feedback(folder, frames, success)), np.flatnonzero(end), f"{folder}: {success}")
    )
    padded = end & done & np.append(False, done[:-1]) & np.append(False, ~end[:-1])
    early = done & ~end & ~np.append(padded[1:], False)
    if early.any():
        at = int(early.argmax())
        raise UserError(
            f"{folder}: next.done is true in frame {int(frames['frame_index'][at])} of episode {int(number[at])}, "
            "which goes on after it: cut the episode there and import again"
        )
    ended = done if solved is None or success != _SUCCESS[0] else solved
    at_last_step = np.where(padded, np.append(False, ended[:-1]), ended)
    bare = end & (padded | ~at_last_step)
    names = {"observed": observed, "action": [action], "reward": [reward] if reward else []}
    rows, notes = _rows(frames, names, bare, folder)
    success_of = None if solved is None else solved & ~padded
    rows = replace(rows, end=end, terminal=at_last_step, success=success_of)
    used = {*observed, action, reward, *ends, success, *labels}
    unused = sorted(features.keys() - {*used, *_OURS} - {*_images(features)})
    unused += sorted(f"episodes/{name}" for name in described - {*used, *features, *_ABOUT_EPISODES} if "/" not in name)
    unused += ["split"] if {*(info.get("splits") or ())} - {"train"} else []
    notes |= {
        "success": solved is not None,
        "fps": info.get("fps"),
        **report(rows, {_LOST: rows.bare & ~padded}, unused),
    }
    found = [(name, _feedback(folder, frames, name)) for name in labels]
    if other := next((name for name, values in found[1:] if not np.array_equal(values, found[0][1])), None):
        raise UserError(f"{folder}: {labels[0]} and {other} differ: say which one counts, with --score {labels[0]}")
    feedback = found[0] if found else None
    read = recorded(rows, str(folder), folder.absolute().name, notes, feedback)
    return _described(read, folder, number[end], frames["task_index"][end])


def _observations(features: Features, folder: Path) -> list[str]:
    """Return the features that are numbers of an observation, in order; `UserError` if there are only images."""
    names = [name for name, feature in features.items() if not _is_image(feature) and feature.get("dtype") != "string"]
    found = [name for name in names if name.startswith("observation")] or [name for name in _STATES if name in names]
    if not found:
        held = (
            "images only" if any(map(_is_image, features.values())) else f"no observation among {', '.join(features)}"
        )
        raise UserError(f"{folder} has {held}: learners here read vectors of numbers, add observation.state")
    return found


def _images(features: Features) -> list[str]:
    return [name for name, feature in features.items() if _is_image(feature)]


def _is_image(feature: Mapping[str, Any]) -> bool:
    return feature.get("dtype") in ("image", "video")


def _numbers(values: Array) -> Array:
    """Return flags (M,) of which some may be null as numbers."""
    return values.astype(np.float32) if values.dtype.kind in "Ob" else values


def _check_order(frames: Frames, end: NDArray[np.bool_], folder: Path) -> None:
    """Raise `UserError` where the frames of an episode are not numbered one by one; `end` (M,) marks its last one."""
    episode, frame = (frames[name] for name in _ORDER)
    if (wrong := (np.diff(frame) != 1) & ~end[:-1]).any():
        at = int(wrong.argmax())
        raise UserError(
            f"{folder}: frame_index goes from {frame[at]} to {frame[at + 1]} in episode {episode[at]}: frames are "
            "missing or there twice, get the data set again"
        )


def _rows(
    frames: Frames, names: Mapping[str, list[str]], bare: NDArray[np.bool_], folder: Path
) -> tuple[Rows, dict[str, JsonValue]]:
    """Return the frames as rows without their ends, and notes of what they hold; bare ones (M,) are no steps."""
    parts = {name: _matrix(frames[name]) for name in names["observed"]}
    kinds: dict[str, Kind] = {"observation": "matrix", "action": "actions", "reward": "vector"}
    arrays = {
        "observation": gathered(
            np.concatenate([part[rows] for part in parts.values()], axis=1) for rows in slices(len(bare))
        ),
        "action": _matrix(_used(frames[names["action"][0]], bare)),
        "reward": _matrix(_used(frames[names["reward"][0]], bare)) if names["reward"] else np.zeros(len(bare), "f4"),
    }
    found = checked(arrays, kinds, folder)
    rows = Rows(found["observation"], found["action"], found["reward"], end=bare, terminal=bare, bare=bare)
    widths: dict[str, JsonValue] = {name: values.shape[1] for name, values in parts.items()}
    return rows, {"rewards": bool(names["reward"]), "observation_parts": widths}


def _used(values: Array, bare: NDArray[np.bool_]) -> Array:
    """Return values (M, …) with 0 where NaN is in rows that are no steps."""
    return without(values, bare & is_nan(values))


def _feedback(folder: Path, frames: Frames, column: str) -> Array:
    """Return the values (M,) of a column of the frames, or of the episodes."""
    if column in frames:
        with open_parquet(next(folder.glob("data/**/*.parquet"))) as file:
            return named_classes(frames[column], classes_in(file).get(column))
    episodes = _episodes(folder)
    if column not in episodes.columns:
        raise unknown("column", column, {*frames, *episodes.columns} - _OURS)
    return episodes[column].to_numpy()[_places(episodes, frames["episode_index"], folder)]


def _described(read: Recorded, folder: Path, numbers: NDArray[np.int64], tasks: NDArray[np.int64]) -> Recorded:
    """Return the episodes with their numbers, the notes on images, and the tasks as behaviours if there are several."""
    kept = np.arange(len(numbers)) if read.numbers is None else read.numbers
    info = _info(folder)
    notes, experience = dict(read.notes), read.experience
    if images := _images(info["features"]):
        paths = {"video": info.get("video_path"), "image": "images/{image_key}/episode-{episode_index:06d}"}
        notes["images"] = {name: paths[info["features"][name]["dtype"]] for name in images}
        videos = [name for name in images if info["features"][name]["dtype"] == "video"]
        files: dict[str, JsonValue] = {name: _video_files(folder, info, name, numbers[kept]) for name in videos}
        if any(files.values()):
            notes["image_files"] = files
    if named := _tasks(folder):
        counts = {text: int((tasks[kept] == index).sum()) for index, text in named.items()}
        notes["tasks"] = {text: count for text, count in counts.items() if count}
        if len(set(tasks[kept].tolist())) > 1:
            behavior = np.array([named.get(index, str(index)) for index in tasks[kept].tolist()])
            experience = replace(experience, behavior=behavior)
    return replace(read, experience=experience, notes=notes, numbers=numbers[kept])


def _video_files(folder: Path, info: dict[str, Any], name: str, numbers: NDArray[np.int64]) -> dict[str, JsonValue]:
    """Return the file of a camera's video for every one of these episodes; of 3.0, in which several share one, when.

    Empty where the data set does not say where its videos are.
    """
    template = info.get("video_path")
    if not isinstance(template, str):
        return {}
    episodes = _episodes(folder)
    here = episodes[_places(episodes, numbers, folder)]
    known = {key: f"videos/{name}/{key}" for key in ("chunk_index", "file_index", "from_timestamp", "to_timestamp")}
    stored = {key: here[column].to_list() for key, column in known.items() if column in here.columns}
    files: list[JsonValue] = []
    for place, number in enumerate(numbers.tolist()):
        values = {key: column[place] for key, column in stored.items()}
        try:
            chunk = number // int(info.get("chunks_size") or _CHUNK)
            path = template.format(video_key=name, episode_index=number, episode_chunk=chunk, **values)
        except (LookupError, ValueError, TypeError, AttributeError):
            return {}
        files.append(path)
    times: dict[str, JsonValue] = {key: stored[key] for key in ("from_timestamp", "to_timestamp") if key in stored}
    return {"path": files, **times}


def _tasks(folder: Path) -> dict[int, str]:
    """Return the tasks by their index; pandas stores the text as the index of the table."""
    path = next((path for path in (folder / "meta/tasks.jsonl", folder / "meta/tasks.parquet") if path.is_file()), None)
    if path is None:
        return {}
    with readable(path):
        if path.suffix == ".jsonl":
            found = pl.read_ndjson(path)
        else:
            with open_parquet(path) as file:
                found = pl.DataFrame(pl.from_arrow(file.read()))
        text = next((name for name in found.columns if name != "task_index"), None)
        return dict(zip(found["task_index"].to_list(), map(str, found[text].to_list()), strict=True)) if text else {}


LEROBOT = Reader(
    name="lerobot",
    reads="LeRobot's folder, v2 and v3 (states and actions; --score COLUMN: labels such as adv_ind)",
    recognises=_is_lerobot,
    open=_source,
    example="so101_pick_place --score adv_ind",
)
