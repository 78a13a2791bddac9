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
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import JsonValue

from pmpo_offline.data import columns
from pmpo_offline.data.exchange.exported import Tables, experience_of
from pmpo_offline.data.exchange.readers.arrays import (
    Array,
    Kind,
    checked,
    flags,
    is_nan,
    side_by_side,
    solved_rows,
    without,
)
from pmpo_offline.data.exchange.readers.episodes import Rows, recorded, report
from pmpo_offline.data.exchange.readers.flat import (
    agreed,
    classes_in,
    column_blocks,
    feedback_columns,
    named_classes,
    readable,
)
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
        if not isinstance(features := info["features"], dict) or {*map(type, features.values())} - {dict}:
            raise ValueError("features is no object of objects")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / _INFO} cannot be read: {error}; get the data set again") from None
    if version.partition(".")[0] not in ("v2", "v3"):
        raise UserError(
            f"{folder} is of LeRobot's version {version}: convert it to v2.1 or v3.0 with lerobot's scripts"
        )
    return dict(info)


def _tables(folder: Path, _: Metadata) -> Tables:
    """Return the tables of an export of this package; the episodes have what frames have no place for."""
    frames = _frames(folder, ["observation.state", "action", "next.reward", "score", "label"])
    observation, action = (_matrix(frames[name]) for name in ("observation.state", "action"))
    schema = episodes_schema(observation.shape[1])
    stored = _episodes(folder).rename({"dataset_from_index": "start"}).with_columns(pl.col("success").fill_null(False))
    episodes = stored.select(schema.names).to_arrow().cast(schema).combine_chunks()
    steps = {"observation": observation, "action": action, "reward": frames["next.reward"]}
    transitions, _ = experience_of(steps, episodes).tables()
    transitions = columns.replace(transitions, score=frames["score"], label=frames["label"])
    return {"transitions": transitions, "episodes": episodes}


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
        frames |= {name: _whole(frames[name], name) for name in (*_ORDER, "task_index") if name in frames}
        episode, frame = (frames[name] for name in _ORDER)
        pairs = (slice(rows.start, rows.stop + 1) for rows in slices(len(frame)))
        if all(_ascend(episode[rows], frame[rows]) for rows in pairs):
            return frames
        order = np.lexsort((frame, episode))
        return {name: gathered(values[order[rows]] for rows in slices(len(order))) for name, values in frames.items()}


def _whole(values: Array, name: str) -> Array:
    """Return whole numbers, also of another type; `ValueError` for anything else."""
    if values.dtype.kind in "iu":
        return values
    with np.errstate(invalid="ignore"):
        numbers = values.astype(np.int64)
    if (numbers != values).any():
        raise ValueError(f"{name} holds other than whole numbers")
    return numbers


def _ascend(episode: Array, frame: Array) -> bool:
    """Return whether frames are in order."""
    later, further = np.diff(episode), np.diff(frame)
    return bool(((later > 0) | (later == 0) & (further > 0)).all())


def _episodes(folder: Path) -> pl.DataFrame:
    """Return meta/episodes, a row an episode, without statistics; no rows if there is no such file."""
    paths = sorted(folder.glob("meta/episodes/**/*.parquet")) or [*folder.glob("meta/episodes.jsonl")]
    if not paths:
        return pl.DataFrame(schema={"episode_index": pl.Int64})
    with readable(folder):
        found = pl.concat(map(_table, paths), how="vertical_relaxed").sort("episode_index")
        if not found.schema["episode_index"].is_numeric():
            raise ValueError("episode_index holds other than numbers")
        return found.with_columns(pl.col("episode_index").cast(pl.Int64))


def _table(path: Path) -> pl.DataFrame:
    with readable(path):
        if path.suffix == ".jsonl":
            return pl.read_ndjson(path)
        with open_parquet(path) as file:
            wanted = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
            return pl.DataFrame(pl.from_arrow(file.read(columns=wanted)))


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
    episodes = _episodes(folder)
    held = {*features, *episodes.columns}
    success = next((name for name in _SUCCESS if name in held), None)
    labels = feedback_columns(column, held)
    used = {*observed, action, reward, "next.done", success, *labels}
    frames = _frames(folder, [*(name for name in features if name in used), "task_index"])
    number = frames["episode_index"]
    end = np.append(number[1:] != number[:-1], True)
    _check_order(frames, end, folder)
    solved = None
    if success is not None:
        said = _column(folder, frames, episodes, success)
        said = said.astype(np.float32) if said.dtype.kind in "Ob" else said  # some may be null
        solved = solved_rows(said, np.flatnonzero(end), f"{folder}: {success}")
    padded, at_last_step = _ends(folder, frames, end, solved if success == _SUCCESS[0] else None)
    bare = end & (padded | ~at_last_step)

    def of_steps(name: str) -> Array:
        """Return a column as (M, n), 0 for NaN in rows that are no steps."""
        return _matrix(without(frames[name], bare & is_nan(frames[name])))

    parts = {name: _matrix(frames[name]) for name in observed}
    arrays = {"observation": side_by_side([*parts.values()]), "action": of_steps(action)}
    kinds: dict[str, Kind] = {"observation": "matrix", "action": "actions"}
    if reward:
        arrays["reward"], kinds["reward"] = of_steps(reward), "vector"
    read = checked(arrays, kinds, folder)
    rows = Rows(
        read["observation"],
        read["action"],
        read.get("reward"),
        end=end,
        terminal=at_last_step,
        bare=bare,
        success=None if solved is None else solved & ~padded,
        named=number[end],
    )
    unused = sorted(features.keys() - {*used, *_OURS, *_images(features)})
    unused += sorted(
        f"episodes/{name}" for name in {*episodes.columns} - {*used, *features, *_ABOUT_EPISODES} if "/" not in name
    )
    unused += ["split"] if {*(info.get("splits") or ())} - {"train"} else []
    left = rows.length > 0
    tasks, named = frames["task_index"][end], _tasks(folder)
    several = named and len(np.unique(tasks[left])) > 1
    notes: dict[str, JsonValue] = {
        "observation_parts": {name: values.shape[1] for name, values in parts.items()},
        "fps": info.get("fps"),
        **report(rows, {_LOST: rows.bare & ~padded}, unused),
        **_image_notes(folder, info, episodes, number[end][left]),
    }
    if named:
        counts = {text: int((tasks[left] == index).sum()) for index, text in named.items()}
        notes["tasks"] = {text: count for text, count in counts.items() if count}
    behavior = [named.get(index, str(index)) for index in tasks.tolist()] if several else folder.absolute().name
    feedback = agreed({name: _column(folder, frames, episodes, name) for name in labels}, folder)
    return recorded(rows, str(folder), behavior, notes, feedback)


def _ends(
    folder: Path, frames: Frames, end: NDArray[np.bool_], solved: NDArray[np.bool_] | None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the last frames (M,) that only hold the final observation, and those whose last step ended the episode.

    `end` (M,) are the last frames, and in `solved` (M,) ones, if any, success ended the episode.
    """
    done = np.zeros(len(end), np.bool_)
    if "next.done" in frames:
        done = flags(frames["next.done"], f"{folder}: next.done")
    padded = end & done & np.append(False, done[:-1]) & np.append(False, ~end[:-1])
    early = done & ~end & ~np.append(padded[1:], False)
    if early.any():
        at = int(early.argmax())
        raise UserError(
            f"{folder}: next.done is true in frame {int(frames['frame_index'][at])} of episode "
            f"{int(frames['episode_index'][at])}, which goes on after it: cut the episode there and import again"
        )
    ended = done if solved is None else solved
    return padded, np.where(padded, np.append(False, ended[:-1]), ended)


def _observations(features: Features, folder: Path) -> list[str]:
    """Return the features that are numbers of an observation, in order; `UserError` if there are only images."""
    images = _images(features)
    names = [name for name, said in features.items() if name not in images and said.get("dtype") != "string"]
    found = [name for name in names if name.startswith("observation")] or [name for name in _STATES if name in names]
    if not found:
        held = "images only" if images else f"no observation among {', '.join(features)}"
        raise UserError(f"{folder} has {held}: learners here read vectors of numbers, add observation.state")
    return found


def _images(features: Features) -> dict[str, str]:
    """Return the kind, image or video, of every feature that is of one."""
    return {name: said["dtype"] for name, said in features.items() if said.get("dtype") in ("image", "video")}


def _check_order(frames: Frames, end: NDArray[np.bool_], folder: Path) -> None:
    """Raise `UserError` where the frames of an episode are not numbered one by one; `end` (M,) marks its last one."""
    episode, frame = (frames[name] for name in _ORDER)
    if (wrong := (np.diff(frame) != 1) & ~end[:-1]).any():
        at = int(wrong.argmax())
        raise UserError(
            f"{folder}: frame_index goes from {frame[at]} to {frame[at + 1]} in episode {episode[at]}: frames are "
            "missing or there twice, get the data set again"
        )


def _column(folder: Path, frames: Frames, episodes: pl.DataFrame, name: str) -> Array:
    """Return the values (M,) of a column of the frames, or of the episodes."""
    if name in frames:
        with open_parquet(next(folder.glob("data/**/*.parquet"))) as file:
            return named_classes(frames[name], classes_in(file).get(name))
    if name not in episodes.columns:
        raise unknown("column", name, {*frames, *episodes.columns} - _OURS)
    return episodes[name].to_numpy()[_places(episodes, frames["episode_index"], folder)]


def _image_notes(
    folder: Path, info: dict[str, Any], episodes: pl.DataFrame, numbers: NDArray[np.int64]
) -> dict[str, JsonValue]:
    """Return the notes of where the images and videos of these episodes are."""
    if not (images := _images(info["features"])):
        return {}
    paths = {"video": info.get("video_path"), "image": "images/{image_key}/episode-{episode_index:06d}"}
    notes: dict[str, JsonValue] = {"images": {name: paths[kind] for name, kind in images.items()}}
    videos = [name for name, kind in images.items() if kind == "video"]
    if videos and isinstance(paths["video"], str):
        here = episodes[_places(episodes, numbers, folder)]
        files: dict[str, JsonValue] = {name: _video_files(info, name, here) for name in videos}
        notes |= {"image_files": files} if any(files.values()) else {}
    return notes


def _video_files(info: dict[str, Any], name: str, episodes: pl.DataFrame) -> dict[str, JsonValue]:
    """Return the file of a camera's video for every one of these episodes; of 3.0, in which several share one, when.

    Empty where the data set does not say where its videos are.
    """
    known = {key: f"videos/{name}/{key}" for key in ("chunk_index", "file_index", "from_timestamp", "to_timestamp")}
    stored = {key: episodes[column].to_list() for key, column in known.items() if column in episodes.columns}
    files: list[JsonValue] = []
    for place, number in enumerate(episodes["episode_index"].to_list()):
        values = {key: column[place] for key, column in stored.items()}
        try:
            chunk = number // int(info.get("chunks_size") or _CHUNK)
            path = info["video_path"].format(video_key=name, episode_index=number, episode_chunk=chunk, **values)
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
        found = _table(path)
        text = next((name for name in found.columns if name != "task_index"), None)
        return dict(zip(found["task_index"].to_list(), map(str, found[text].to_list()), strict=True)) if text else {}


LEROBOT = Reader(
    name="lerobot",
    reads="LeRobot's folder, v2 and v3 (states and actions; --score COLUMN: labels such as adv_ind)",
    recognises=_is_lerobot,
    open=_source,
    example="so101_pick_place --score adv_ind",
)
