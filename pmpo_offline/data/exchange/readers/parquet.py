"""Our own columns in Parquet: a table of steps as this package stores and exports it, in one file or a folder of files.

    observation (list), action (list), reward, terminated, truncated     a row a step, in order
    next_observation    where given; else the last step of a truncated episode is dropped: what followed it is unknown
    label, success      where given

An unchanged export of this package (`--to parquet`, `--to huggingface`) comes back whole, from the folders of its
tables; one that was changed is read as a table of steps, and what its episodes' table says besides is not used.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from pydantic import JsonValue

from pmpo_offline.data import columns, schema
from pmpo_offline.data.exchange.exported import Tables, metadata_of
from pmpo_offline.data.exchange.origin import unchanged
from pmpo_offline.data.exchange.readers.episodes import GOES_ON, RESET, Rows, recorded, report
from pmpo_offline.data.exchange.readers.flat import SUCCESS, Flat, Kind
from pmpo_offline.data.exchange.readers.order import (
    begins_with_resets,
    check_numbers,
    ends_by_successors,
    resets_itself,
)
from pmpo_offline.data.exchange.readers.source import Candidate, Exported, Reader, Recorded, Source

STEPS = "transitions"
_NEEDED: dict[str, Kind] = {
    "observation": "matrix",
    "action": "actions",
    "reward": "vector",
    "terminated": "flags",
    "truncated": "flags",
}
_OPTIONAL: dict[str, Kind] = {"next_observation": "matrix", **SUCCESS}
_LOST = "the last row of a truncated episode: what followed it is not in the file"


def _steps(given: Candidate) -> Candidate:
    """Return the steps among the tables of an export, else what is given."""
    inside = given.path / STEPS
    return Candidate(str(inside)) if inside.is_dir() else given


def _is_ours(given: Candidate) -> bool:
    steps = _steps(given)
    return bool(steps.files) and steps.files[0].suffix == ".parquet" and steps.has(*_NEEDED)


def _source(given: Candidate) -> Source:
    steps = _steps(given)
    exported = _exported(given.path)
    files = {path.relative_to(given.path).as_posix(): path for path in sorted(given.path.rglob("*.parquet"))}
    name = exported.metadata.id if exported else given.path.stem
    return Source(
        format="parquet",
        name=name,
        files=files if exported else {path.name: path for path in steps.files},
        read=lambda column=None: _read(steps.flat, name, column),
        packages=("pyarrow",),
        task=exported.metadata.task if exported else None,
        references=exported.metadata.references if exported else None,
        licence=exported.metadata.licence if exported else "unknown",
        takes_column=True,
        exported=exported,
    )


def _exported(folder: Path) -> Exported | None:
    """Return the dataset of this package whose unchanged export is in `folder`."""
    if (content := unchanged(folder)) is None:
        return None
    return Exported(metadata_of(content, folder), lambda: _tables(folder))


def _tables(folder: Path) -> Tables:
    found = {
        name: ds.dataset(folder / name, format="parquet").to_table()
        for name in (STEPS, "episodes", "candidates")
        if (folder / name).is_dir()
    }
    episodes = found["episodes"]
    if episodes["success"].null_count:  # nothing is known of it
        nothing = pa.array(np.zeros(episodes.num_rows, np.bool_))
        found["episodes"] = columns.replace(episodes, success=nothing)
    return {
        name: found[name].select(wanted.names).cast(wanted).combine_chunks()
        for name, wanted in schema.schemas(found).items()
    }


def _read(flat: Flat, name: str, column: str | None) -> Recorded:
    arrays = flat.read(_NEEDED, _OPTIONAL)
    following = arrays.get("next_observation")
    marked = arrays["terminated"] | arrays["truncated"]
    end, unmarked = np.append(marked[:-1], True), 0
    bare = end & ~arrays["terminated"]
    reason, goes_on = _LOST, False
    if following is not None:
        end, unmarked = ends_by_successors(arrays["observation"], following, marked, flat.path, all=True)
        resets, reason = resets_itself(arrays["observation"], following, marked & ~arrays["terminated"]), RESET
        bare = end & ~arrays["terminated"] & resets
        if bare.any():
            following = np.where(bare[:, None], arrays["observation"], following)
        goes_on = resets and begins_with_resets(arrays["reward"], marked)
    check_numbers(flat, end)
    success = flat.solved(arrays)
    rows = Rows(
        arrays["observation"],
        arrays["action"],
        arrays["reward"],
        end=end,
        terminal=arrays["terminated"],
        bare=bare,
        following=following,
        success=success,
    )
    notes: dict[str, JsonValue] = {
        "rewards": True,
        "success": success is not None,
        "episodes_ended_by_next_observations": unmarked,
        **report(rows, {reason: rows.bare}),
        **({GOES_ON: int(marked[:-1].sum())} if goes_on else {}),
    }
    return recorded(rows, str(flat.path), name, notes, flat.feedback(column))


PARQUET = Reader(
    name="parquet",
    reads="our own columns in .parquet (observation, action, reward, terminated, truncated), and exports in them",
    recognises=_is_ours,
    open=_source,
    example="exported",
)
