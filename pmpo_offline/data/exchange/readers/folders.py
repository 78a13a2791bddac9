"""Episodes that a person sorted into folders: `accepts/` and `rejects/`, `success` and `failure-data`.

The name of a folder says what its episodes are, by a word such as accept, success, positive, fail or bad. Each one is
read as if it were imported alone; it may hold several files or data sets of one form. Names that say neither or both
are refused: a folder `unlabelled` holds episodes without a label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import JsonValue

from pmpo_offline.data import Experience
from pmpo_offline.data.exchange.readers import minari_folder
from pmpo_offline.data.exchange.readers.feedback import meaning_of
from pmpo_offline.data.exchange.readers.source import Candidate, Reader, Recorded, Source, open_source
from pmpo_offline.runtime.errors import UserError

_UNLABELLED = ("unlabelled", "unlabeled")


def _folders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def _is_sorted(given: Candidate) -> bool:
    """Return whether a folder holds folders that say accept or reject."""
    if not given.path.is_dir() or minari_folder(given.path) or (given.path / "meta/info.json").is_file():
        return False
    return any(meaning_of(folder.name) is not None for folder in _folders(given.path))


def _source(given: Candidate) -> Source:
    inside = {folder.name: list(_sources(folder)) for folder in _folders(given.path)}
    for name, found in inside.items():
        if found and meaning_of(name) is None and name.lower() not in _UNLABELLED:
            raise UserError(
                f"{given.path / name}: the name says neither accept nor reject (or both): call it accepts, rejects, "
                "success, failure or unlabelled"
            )
    sources = [source for found in inside.values() for source in found]
    if not sources:
        raise UserError(f"{given.path} holds no episodes in {', '.join(inside)}")
    if len(formats := {source.format for source in sources}) > 1:
        raise UserError(f"{given.path} holds {' and '.join(sorted(formats))}: import sources of one form at a time")
    first = sources[0]
    files = {
        f"{name}/{source.name}/{short}": path
        for name, found in inside.items()
        for source in found
        for short, path in source.files.items()
    }
    return replace(
        first,
        name=given.path.absolute().name,
        files=files,
        read=lambda: _read(inside),
        environment=first.environment if all(source.environment == first.environment for source in sources) else None,
        takes_column=False,
        exported=None,
    )


def _sources(folder: Path) -> Iterator[Source]:
    """Yield the source that a folder is, else those that lie in it."""
    try:
        yield open_source(str(folder))
        return
    except UserError as error:
        within = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
        if not within:
            return
        problem = error
    found = [path for path in within if path.is_dir() or path.suffix in (".npz", ".hdf5", ".h5", ".parquet")]
    if not found:
        raise problem
    for path in found:
        yield open_source(str(path))


def _read(inside: dict[str, list[Source]]) -> Recorded:
    parts: list[Recorded] = []
    labels: list[float] = []
    counts: dict[str, JsonValue] = {}
    for name, found in inside.items():
        for source in found:
            part = (source.exported or source).read()
            meaning = meaning_of(name)
            parts.append(part)
            labels += [np.nan if meaning is None else meaning] * len(part.experience.length)
            word = {None: "unlabelled", 1.0: "accept", -1.0: "reject"}[meaning]
            counts[f"{name}: {source.name}"] = f"{word}, {len(part.experience.length)} episodes"
    shapes = {(part.experience.observation.shape[1], part.experience.action.shape[1]) for part in parts}
    if len(shapes) > 1:
        raise UserError(
            f"the folders hold observations and actions of other widths: {', '.join(map(str, sorted(shapes)))}"
        )
    first = parts[0].notes
    notes: dict[str, JsonValue] = {
        name: value for name, value in first.items() if all(part.notes.get(name) == value for part in parts)
    }
    notes |= {name: all(bool(part.notes[name]) for part in parts) for name in ("rewards", "success")}
    notes |= {"folders": counts, "feedback": {"column": "the folder", "of": "episode", "labels": True}}
    if reports := [part.notes["report"] for part in parts if "report" in part.notes]:
        notes["report"] = _summed(reports)
    experience = Experience.concatenate([part.experience for part in parts])
    return Recorded(experience, notes, np.array(labels, np.float32))


def _summed(reports: Sequence[Any]) -> dict[str, JsonValue]:
    """Return one report of the rows that were dropped in several sources, and the columns that none of them used."""
    unused = sorted({name for report in reports for name in report.get("columns_not_used", ())})
    passed_over: dict[str, JsonValue] = {"columns_not_used": unused} if unused else {}
    lost = [report for report in reports if "dropped" in report]
    if not lost:
        return passed_over
    counts = {name: sum(report[name] for report in lost) for name in ("rows", "episodes", "episodes_dropped")}
    dropped = sum((Counter(report["dropped"]) for report in lost), Counter[str]())
    first = {reason: place for report in reversed(lost) for reason, place in report["first_dropped"].items()}
    return {**counts, "dropped": dict(dropped), "first_dropped": first, **passed_over}


FOLDERS = Reader(
    name="folders",
    reads="episodes in any of these forms, sorted into folders such as accepts/ and rejects/, or success and failure",
    recognises=_is_sorted,
    open=_source,
    example="reviewed",
)
