"""What a reader is, what it returns, and which one reads a given name: the first registered one that recognises it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import JsonValue

from pmpo_offline.data import Experience, columns
from pmpo_offline.data.exchange.exported import experience_of, found_in, hashes_of, metadata_of, sound_name, unchanged
from pmpo_offline.data.exchange.readers import ARRAYS, READERS
from pmpo_offline.data.exchange.readers.flat import Flat, joined, open_flat
from pmpo_offline.data.schema import Metadata, References
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.files import in_order


@dataclass(frozen=True)
class Environment:
    """The environment that the episodes were recorded in."""

    id: str
    """As its own library names it, with its version: "Hopper-v5", or "d4rl/hopper-v2" for one of D4RL's."""
    plain: bool = True
    """Whether it was made without arguments and wrappers of its own."""
    horizon: int | None = None
    """Steps after which episodes were cut; None where the source does not say."""


@dataclass(frozen=True)
class Recorded:
    """The episodes, and what is known of how they were read."""

    experience: Experience
    notes: Mapping[str, JsonValue]
    """`rewards`, `success`: whether the source has any (False: the columns hold 0 and false); what replaces unknown
    final observations; the action space's bounds, or the number of discrete `actions`; `report`, if rows were
    dropped: how many, why, and the first one; `feedback`: its column, whether it is of steps or episodes (`of`), and
    whether it holds labels (`labels`)."""
    feedback: NDArray[np.float32] | None = None
    """(N,) or (E,) labels +1 and −1, or scores; NaN where there is none."""
    numbers: NDArray[Any] | None = None
    """(E,) the number, or the name, of each episode in the source, by which a file of labels calls it; None: in order
    from 0."""
    are_counted: bool = True
    """Whether those are counted from 0 here, and not the source's own."""
    firsts: NDArray[np.int64] | None = None
    """(E,) the first episode that equals each one; None: all differ, or they were not compared."""

    @property
    def feedback_note(self) -> dict[str, Any]:
        """The note of the feedback, empty if there is none."""
        note = self.notes.get("feedback")
        return note if self.feedback is not None and isinstance(note, dict) else {}

    @property
    def report(self) -> dict[str, Any]:
        """The note of what was dropped and not used, empty if there is none."""
        report = self.notes.get("report")
        return report if isinstance(report, dict) else {}


@dataclass(frozen=True)
class Exported:
    """A dataset of this package that comes back from its export."""

    metadata: Metadata
    tables: Callable[[], Mapping[str, pa.Table]]
    """Return its tables, labels and scores included."""

    def read(self) -> Recorded:
        """Return its episodes, for other labels."""
        settings = self.metadata.provenance.settings
        known = {name: settings.get(name) is not False for name in ("rewards", "success")}
        found, rule = self.tables(), self.metadata.label
        steps = {name: columns.values(found["transitions"], name) for name in ("observation", "action", "reward")}
        experience = experience_of(steps, found["episodes"])
        if rule.score != "column":
            return Recorded(experience, {**settings, **known})
        table = found["episodes" if self.metadata.unit == "episode" else "transitions"]
        note: JsonValue = {"column": "score", "of": self.metadata.unit, "labels": rule.threshold == "sign"}
        scores = columns.vector(table, "score").astype(np.float32)
        return Recorded(experience, {**settings, **known, "feedback": note}, scores)


@dataclass(frozen=True)
class Source:
    """A data set of another library, found and identified, but not yet read."""

    format: str
    """The name of its reader."""
    name: str
    """What it is called there; may be made of anything."""
    files: Mapping[str, Path]
    """Every file that is read, by a short name."""
    read: Callable[..., Recorded]
    """Read all of it, with the feedback in a column if its name is an argument; `UserError` where the content is not
    what the format says."""
    packages: tuple[str, ...]
    """Whose versions matter to how it is read."""
    task: str | None = None
    """The task here that it says it is of, as exports of this package do."""
    environment: Environment | None = None
    """None where the source does not say."""
    references: References | None = None
    licence: str = "unknown"
    author: str = "unknown"
    takes_column: bool = False
    """Whether `read` takes the name of a column of feedback."""
    exported: Exported | None = None
    """The dataset of this package whose export it is, which then says task, references and licence."""

    def hashes(self) -> dict[str, str]:
        """Return the sha256 of every file; of many files, that of the list which `sha256sum` prints of them."""
        return hashes_of(self.files)

    def __post_init__(self) -> None:
        known: dict[str, object] = {}
        if self.exported:
            known = {name: getattr(self.exported.metadata, name) for name in ("task", "references", "licence")}
        # File systems allow bytes in names that are no UTF-8, which JSON has no place for.
        known["name"] = sound_name(self.name)
        known["files"] = {sound_name(name): path for name, path in self.files.items()}
        for name, value in known.items():
            object.__setattr__(self, name, value)


class Candidate:
    """What `import` was given, as readers see it before they recognise it."""

    def __init__(self, name: str) -> None:
        if not name.strip():
            raise UserError("import: the source is empty: name a file, a folder, minari:ID or hf:NAME")
        self.name = name
        """A path, or a name in a reader's own scheme: "minari:mujoco/hopper/medium-v0"."""
        self.path = Path(name).expanduser()

    @cached_property
    def files(self) -> list[Path]:
        """The files of arrays: the one at `path`, or a folder's, sorted; `UserError` if they are of several kinds."""
        if not self.path.is_dir():
            return [self.path] if self.path.is_file() and self.path.suffix in ARRAYS else []
        found = {ending: files for ending in ARRAYS if (files := in_order(self.path.glob(f"*{ending}")))}
        if len(found) > 1:
            raise UserError(f"{self.path} holds {' and '.join(found)} files: give one of them, or a folder of one kind")
        return next(iter(found.values()), [])

    @cached_property
    def shards(self) -> list[Flat]:
        """The arrays of each of `files` that holds rows, at least one; `UserError` for a damaged file."""
        if found := [*filter(None, map(open_flat, self.files))]:
            return found
        raise UserError(f"{self.path} holds no rows")

    @cached_property
    def flat(self) -> Flat:
        """The arrays of all `files`."""
        return joined(self.shards, self.path) if self.path.is_dir() else self.shards[0]

    def has(self, *names: str) -> bool:
        """Return whether there are arrays of all these names."""
        return bool(self.files) and all(map(self.flat.parts, names))


def of_arrays(form: str, given: Candidate, read: Callable[[Flat, str, str | None], Recorded], **known: Any) -> Source:
    """Return the source that files of arrays are, called as the file; `read` takes the arrays, that name and a column.

    `known` are other fields of `Source`.
    """
    flat, name = given.flat, given.flat.path.stem
    files = {path.name: path for path in given.files}
    return Source(form, name, files, lambda column=None: read(flat, name, column), takes_column=True, **known)


def exported_in(flat: Flat, read: Callable[[Flat], Mapping[str, pa.Table]]) -> Exported | None:
    """Return the dataset of this package that a file of arrays is an export of, whose tables `read` returns."""
    metadata = found_in(flat, flat.path)
    return None if metadata is None else Exported(metadata, lambda: read(flat))


def exported_to(folder: Path, read: Callable[[Path, Metadata], Mapping[str, pa.Table]]) -> Exported | None:
    """Return the dataset of this package whose unchanged export is in `folder`, where `read` finds its tables."""
    if (content := unchanged(folder)) is None:
        return None
    metadata = metadata_of(content, folder)
    return Exported(metadata, lambda: read(folder, metadata))


_AS_D4RL = "as D4RL does, observations, actions, rewards, terminals and timeouts, a row a step"


@dataclass(frozen=True)
class Reader:
    """A format of trajectories."""

    name: str
    reads: str
    """What it reads, for the help, the docs and the errors."""
    recognises: Callable[[Candidate], bool]
    open: Callable[[Candidate], Source]
    """`UserError` for what is recognised and cannot be read."""
    example: str
    """A source, as `import` is given it."""


def open_source(name: str) -> Source:
    """Return what is found under a name: one in a reader's scheme, as `minari:ID`, or the path of a file or a folder.

    Raises `UserError` where there is nothing, or nothing that can be read here.
    """
    given = Candidate(name)
    for reader in READERS.values():
        if reader.recognises(given):
            return reader.open(given)
    known = f"known are {', '.join(READERS)} and texts, which import --help describes"
    if not given.path.exists():
        scheme, colon, _ = name.partition(":")
        unknown = f"{scheme}: is no place to import from; " if colon and scheme.isalnum() else ""
        raise UserError(f"{name}: there is no such file or folder; {unknown}{known}")
    if below := [place.parent.parent for place in sorted(given.path.glob("*/*/data/metadata.json"))]:
        raise UserError(f"{given.path} holds Minari data sets further below: give one of them, as {below[0]}")
    if not given.files:
        ends = f"is no file of arrays: they end in {', '.join(ARRAYS)}"
        held = "holds no Minari data set and no files of arrays" if given.path.is_dir() else ends
        raise UserError(f"{given.path} {held}; {known}")
    if any(array.startswith("episode_0/") for array in given.flat.names):
        raise UserError(
            f"{given.path} holds a group for every episode: if it is the inside of a Minari data set, give the folder "
            f"that holds data/metadata.json; else write one array for all episodes together, {_AS_D4RL}"
        )
    held = ", ".join(sorted(given.flat.names)[:12]) or "nothing"
    raise UserError(f"{given.path} is not recognised by its arrays, {held}: call them {_AS_D4RL}; {known}")
