"""Episodes in the files of a folder, and those that a person sorted into `accepts/` and `rejects/`.

The name of a folder says what its episodes are, by a word such as accept, success, positive, fail or bad. Each one is
read as if it were imported alone; it may hold several files or data sets of one form. Names that say neither or both
are refused: a folder `unlabelled` holds episodes without a label. Unsorted files are read one after another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from pmpo_offline.data import Experience
from pmpo_offline.data.exchange.readers import ARRAYS, READERS, minari_folder
from pmpo_offline.data.exchange.readers.episodes import COUNTS
from pmpo_offline.data.exchange.readers.feedback import meaning_of
from pmpo_offline.data.exchange.readers.source import Candidate, Reader, Recorded, Source, open_source
from pmpo_offline.runtime.errors import UserError

THE_FOLDER = "the folder"
"""What is noted in place of a column of labels."""
_UNLABELLED = ("unlabelled", "unlabeled")


def _folders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def _is_sorted(given: Candidate) -> bool:
    """Return whether a folder holds folders that say accept or reject."""
    if not given.path.is_dir() or minari_folder(given.path) or (given.path / "meta/info.json").is_file():
        return False
    return any(meaning_of(folder.name) is not None for folder in _folders(given.path))


def _source(given: Candidate) -> Source:
    if beside := [path.name for path in sorted(given.path.iterdir()) if path.is_file() and path.suffix in ARRAYS]:
        raise UserError(f"{given.path / beside[0]} lies beside the sorted folders: move it into one of them")
    folders = _folders(given.path)
    inside = [(folder.name, source) for folder in folders for source in _sources(folder)]
    for name, _ in inside:
        if meaning_of(name) is None and name.lower() not in _UNLABELLED:
            raise UserError(
                f"{given.path / name}: the name says neither accept nor reject (or both): call it accepts, rejects, "
                "success, failure or unlabelled"
            )
    if not inside:
        raise UserError(f"{given.path} holds no episodes in {', '.join(folder.name for folder in folders)}")
    files = {f"{name}/{source.name}/{short}": path for name, source in inside for short, path in source.files.items()}
    together = _together(given.path, [source for _, source in inside], files, lambda: _read(inside))
    return replace(together, takes_column=False)


def _together(
    folder: Path, sources: Sequence[Source], files: Mapping[str, Path], read: Callable[..., Recorded]
) -> Source:
    """Return sources of one form as one, which says what all of them say."""
    if len(formats := {source.format for source in sources}) > 1:
        raise UserError(f"{folder} holds {' and '.join(sorted(formats))}: import sources of one form at a time")
    same: dict[str, Any] = {}
    for name in ("environment", "references", "task"):
        first, *others = [getattr(source, name) for source in sources]
        same[name] = first if all(other == first for other in others) else None
    return replace(sources[0], name=folder.absolute().name, files=files, read=read, exported=None, **same)


def _sources(folder: Path) -> Iterator[Source]:
    """Yield the source that a folder is, else those that lie in it."""
    within = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    found = [path for path in within if path.is_dir() or path.suffix in ARRAYS]
    given = Candidate(str(folder))
    if whole := _reader_of(given):
        yield whole.open(given)
    elif within and not found:
        open_source(str(folder))  # raises
    else:
        yield from (open_source(str(path)) for path in found)


def _reader_of(given: Candidate) -> Reader | None:
    """Return the reader of something as one source."""
    try:
        return next((reader for reader in READERS.values() if reader is not FILES and reader.recognises(given)), None)
    except UserError:  # files of several kinds, or a damaged one
        return None


def _read(inside: Sequence[tuple[str, Source]]) -> Recorded:
    """Return the episodes in sorted folders, labelled by the folders' names."""
    parts = [(source.exported or source).read() for _, source in inside]
    whole = _joined(parts, "the folders")
    meanings, lengths = [meaning_of(name) for name, _ in inside], [len(part.experience.length) for part in parts]
    words = {None: "unlabelled", 1.0: "accept", -1.0: "reject"}
    counts: dict[str, JsonValue] = {
        f"{name}: {source.name}": f"{words[meaning]}, {length} episodes"
        for (name, source), meaning, length in zip(inside, meanings, lengths, strict=True)
    }
    note: JsonValue = {"column": THE_FOLDER, "of": "episode", "labels": True}
    own = {str(part.feedback_note["column"]) for part in parts if part.feedback_note}
    report = _summed([whole.report, {"columns_not_used": own}])
    notes = {**whole.notes, "folders": counts, "feedback": note, **({"report": report} if report else {})}
    labels = np.repeat(np.array(meanings, np.float32), lengths)  # NaN for None
    return replace(whole, notes=notes, feedback=labels)


def _joined(parts: Sequence[Recorded], where: str) -> Recorded:
    """Return the episodes of several sources in a row, with what their notes have in common and without feedback."""
    shapes = {(part.experience.observation.shape[1], part.experience.action.shape[1]) for part in parts}
    if len(shapes) > 1:
        raise UserError(f"{where} hold observations and actions of other widths: {', '.join(map(str, sorted(shapes)))}")
    notes: dict[str, JsonValue] = {
        name: value
        for name, value in parts[0].notes.items()
        if name != "report" and all(part.notes.get(name) == value for part in parts)
    }
    notes |= {name: all(bool(part.notes[name]) for part in parts) for name in ("rewards", "success")}
    for name in COUNTS:
        if any(name in part.notes for part in parts):
            notes[name] = sum(int(str(part.notes.get(name, 0))) for part in parts)
    if report := _summed([part.report for part in parts]):
        notes["report"] = report
    experience = Experience.concatenate([part.experience for part in parts])
    return Recorded(experience, notes, None, *_numbers(parts))


def _numbers(parts: Sequence[Recorded]) -> tuple[NDArray[Any], bool]:
    """Return the episodes' own numbers if they differ, else those that count them over all sources, and which it is."""
    own = [part.numbers for part in parts if part.numbers is not None and not part.are_counted]
    if len(own) == len(parts) and len(np.unique(joined := np.concatenate(own))) == len(joined):
        return joined, False
    found, before = [], 0
    for part in parts:
        left = len(part.experience.length)
        count = left + part.report.get("episodes_dropped", 0)
        places = np.arange(left) if part.numbers is None else part.numbers
        if places.dtype.kind != "i" or places.max() >= count:  # names, or numbers that do not count from 0
            places = np.arange(left)
        found.append(before + places)  # gaps are episodes that vanished
        before += count
    return np.concatenate(found), True


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


def _is_folder_of_files(given: Candidate) -> bool:
    """Return whether a folder holds files each of which can be read, but that no reader takes as one."""
    return given.path.is_dir() and bool(given.files) and _reader_of(Candidate(str(given.files[0]))) is not None


def _source_of_files(given: Candidate) -> Source:
    sources = [open_source(str(path)) for path in given.files]
    files = {path.name: path for path in given.files}
    return _together(given.path, sources, files, lambda column=None: _read_files(sources, column))


def _read_files(sources: Sequence[Source], column: str | None) -> Recorded:
    """Return the episodes of files, one after another; if each holds one, it is called as its file."""
    parts = [source.read(*([column] if column else [])) for source in sources]
    whole = _joined(parts, "the files")
    feedback, note = _joined_feedback(sources, parts)
    notes = {**whole.notes, **note, "source_files": len(parts)}
    if len(parts) == len(whole.experience.length):
        names = np.array([Path(next(iter(source.files))).stem for source in sources])
        return Recorded(whole.experience, notes, feedback, names, are_counted=False)
    return replace(whole, notes=notes, feedback=feedback)


def _joined_feedback(
    sources: Sequence[Source], parts: Sequence[Recorded]
) -> tuple[NDArray[np.float32] | None, dict[str, JsonValue]]:
    """Return the feedback in a column of several files, of episodes if it is in each, else of steps, and its note."""
    notes: list[Any] = [part.notes.get("feedback") for part in parts]
    if not any(notes):
        return None, {}
    if odd := [source.name for source, note in zip(sources, notes, strict=True) if note is None]:
        raise UserError(f"{odd[0]} has no column {next(filter(None, notes))['column']}, which other files have")
    if len({(note["column"], note["labels"]) for note in notes}) > 1:
        raise UserError(f"column {notes[0]['column']} holds labels in some files and scores in others: give --labels")
    of = "episode" if all(note["of"] == "episode" for note in notes) else "step"
    values = [
        np.repeat(part.feedback, part.experience.length if note["of"] != of else 1)
        for part, note in zip(parts, notes, strict=True)
        if part.feedback is not None
    ]
    return np.concatenate(values), {"feedback": {**notes[0], "of": of}}


FILES = Reader(
    name="files",
    reads="a folder of files of episodes in any of these forms, one after another",
    recognises=_is_folder_of_files,
    open=_source_of_files,
    example="episodes --labels reviewed.csv",
)
