"""Exports of this package come back whole: their metadata, and their tables with scores, labels and candidates.

Every export has its metadata in a file beside it (`MARKER`); a single file of arrays holds them too, in the text
`metadata/dataset`, so that it may be moved, and the tables of episodes and candidates, one array a column:
`metadata/episodes/…`, `metadata/candidates/…`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import ValidationError

from pmpo_offline.data import Dataset, Experience, columns
from pmpo_offline.data.schema import FileInfo, Metadata, References, candidates_schema, episodes_schema
from pmpo_offline.data.storage import METADATA_FILE, SEAL_FILE
from pmpo_offline.runtime.arguments import validated
from pmpo_offline.runtime.errors import UserError, reason_of
from pmpo_offline.runtime.files import from_json
from pmpo_offline.runtime.hashing import hash_bytes, hash_file

MARKER = "pmpo_offline.json"
"""File that describes an export, and marks the folder as one that may be overwritten."""
_NO_DATA = (MARKER, METADATA_FILE, SEAL_FILE, "README.md")
_NO_EXPORT = (OSError, ValueError, KeyError, TypeError, AttributeError)
"""What reading the folder of something else raises; a `ValidationError` is a `ValueError`."""
_LISTED = 100
"""Up to this number of files, the metadata lists each file's hash."""
ABOUT = "metadata/dataset"
"""The array that holds the metadata of the dataset as JSON."""
Tables = dict[str, pa.Table]


class Arrays(Protocol):
    """Named arrays of a file."""

    @property
    def names(self) -> frozenset[str]:
        """Names of all arrays."""

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return one array."""


@dataclass(frozen=True)
class Origin:
    """The task, the reference scores and the settings of the dataset that was exported."""

    task: str
    references: References | None
    settings: Mapping[str, Any]
    """The build settings in its provenance."""
    format: str | None = None
    """What it was exported to; None for a dataset itself."""
    metadata: Metadata | None = None
    """All that was known of it; None where it was exported by another version that said something else."""


def origin(folder: Path) -> Origin | None:
    """Return where an export in `folder`, or a dataset in HDF5 form, comes from; None for a folder that is neither."""
    try:
        content = _stated(folder)
        metadata = content["dataset"]
        references = metadata["references"]
        scores = None if references is None else References.model_validate(references)
        whole = None
        with suppress(ValidationError):
            whole = Metadata.model_validate({**metadata, "files": {}})
        return Origin(str(metadata["task"]), scores, dict(metadata["provenance"]["settings"]), content["format"], whole)
    except _NO_EXPORT:
        return None


def files_in(folder: Path) -> dict[str, FileInfo]:
    """Return the files of data in the folder of an export or a dataset: all but its marker, page and hidden files."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        name: FileInfo(sha256=hash_file(path), bytes=path.stat().st_size)
        for name, path in files.items()
        if name not in _NO_DATA and not any(part.startswith(".") for part in name.split("/"))
    }


def unchanged(folder: Path) -> dict[str, Any] | None:
    """Return the metadata of a dataset whose export, or which itself, is in `folder`, unchanged; None for all else."""
    try:
        content = _stated(folder)
        files = {name: info for name, info in content["files"].items() if name not in _NO_DATA}
        same = files == {name: info.model_dump() for name, info in files_in(folder).items()}
        return {**content["dataset"], "files": files} if same else None
    except _NO_EXPORT:
        return None


def _stated(folder: Path) -> dict[str, Any]:
    """Return what the marker of an export holds; of a dataset itself the same, its format None."""
    if (folder / MARKER).is_file():
        return dict(from_json((folder / MARKER).read_bytes()))
    metadata = from_json((folder / METADATA_FILE).read_bytes())
    return {"dataset": metadata, "format": None, "files": metadata.get("files")}


def described(metadata: Metadata) -> str:
    """Return the metadata of an exported dataset as JSON, without the files that it was stored in."""
    return metadata.model_dump_json(exclude={"files"})


def about(dataset: Dataset) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield (name, array) of what a file of arrays holds beside the steps; texts are arrays of objects."""
    yield ABOUT, np.array(described(dataset.metadata), object)
    for title, table in dataset.others.items():
        for name in table.column_names:
            yield f"metadata/{title}/{name}", columns.values(table, name)


def metadata_of(content: Any, where: object) -> Metadata:
    """Return exported metadata; `UserError` if they are damaged, or of a later version of this package."""
    parsed = validated(Metadata, content, f"{where} holds no metadata that this pmpo-offline can read")
    return parsed.model_copy(update={"schema_version": Metadata.model_fields["schema_version"].default})


def found_in(arrays: Arrays, where: object) -> Metadata | None:
    """Return the metadata in a file of arrays, None if it is no export of this package."""
    if ABOUT not in arrays.names:
        return None
    try:
        content = from_json(_texts(arrays[ABOUT].reshape(1))[0].as_py())
    except ValueError as error:
        raise UserError(f"{where} is damaged: {ABOUT} cannot be read ({reason_of(error)}); export it again") from None
    return metadata_of(content, where)


def tables(arrays: Arrays, experience: Experience, score: NDArray[Any], label: NDArray[Any]) -> Tables:
    """Return the tables of an exported dataset.

    Args:
        arrays: hold the episodes and the candidates.
        experience: the steps; what the episodes are is read from `arrays`.
        score: (N,) of the steps, NaN where absent.
        label: (N,) of the steps, +1, −1 and 0.
    """
    schemas = {
        "episodes": episodes_schema(experience.observation.shape[1]),
        "candidates": candidates_schema(experience.action.shape[1]),
    }
    kept = {title: schema for title, schema in schemas.items() if f"metadata/{title}/score" in arrays.names}
    if "episodes" not in kept:
        raise UserError("the file lacks metadata/episodes, which every export of pmpo-offline has: export it again")
    found = {title: _table(arrays, title, schema) for title, schema in kept.items()}
    if found["episodes"].num_rows != len(experience.length):
        raise UserError(
            f"the file has {len(experience.length)} episodes and metadata/episodes {found['episodes'].num_rows}: it is "
            "damaged, export it again"
        )
    steps, _ = replace(experience, terminated=columns.vector(found["episodes"], "terminated")).tables()
    return {"transitions": columns.replace(steps, score=score, label=label), **found}


def _table(arrays: Arrays, title: str, schema: pa.Schema) -> pa.Table:
    stored: dict[str, Any] = {field.name: arrays[f"metadata/{title}/{field.name}"] for field in schema}
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    try:
        return columns.table_of({**stored, **{name: _texts(stored[name]) for name in texts}}, schema)
    except (TypeError, ValueError) as error:  # those of Arrow too: other lengths, shapes or kinds of values
        raise UserError(f"metadata/{title} is damaged ({reason_of(error)}): export the file again") from None


def experience_of(steps: Mapping[str, NDArray[Any]], episodes: pa.Table) -> Experience:
    """Return the episodes with these observations, actions and rewards of their steps."""
    return Experience(
        observation=steps["observation"],
        action=steps["action"],
        reward=steps["reward"],
        length=columns.vector(episodes, "length").astype(np.int64),
        success=columns.vector(episodes, "success"),
        terminated=columns.vector(episodes, "terminated"),
        seed=columns.vector(episodes, "seed"),
        final_observation=columns.matrix(episodes, "final_observation"),
        behavior=np.array(episodes["behavior"].to_pylist()),
    )


def _texts(values: NDArray[Any]) -> pa.Array:
    try:
        return pa.array([value.decode() if isinstance(value, bytes) else str(value) for value in values.tolist()])
    except UnicodeDecodeError:
        raise UserError("the file holds texts that are no UTF-8: it is damaged, export it again") from None


def sound_name(name: str) -> str:
    """Return a file's name without the bytes that are no UTF-8, which file systems allow and JSON does not."""
    return name.encode("utf-8", "replace").decode()


def hashes_of(files: Mapping[str, Path]) -> dict[str, str]:
    """Return the sha256 of every file; of many files, that of the list which `sha256sum` prints of them."""
    hashes = {name: hash_file(path) for name, path in sorted(files.items())}
    if len(hashes) <= _LISTED:
        return hashes
    listed = "".join(f"{digest}  {name}\n" for name, digest in hashes.items())
    return {f"list of {len(hashes)} files": hash_bytes([listed.encode()])}
