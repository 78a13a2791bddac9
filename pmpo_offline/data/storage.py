"""Datasets on disk, whole or absent: writing one, reading one, and checking that its files are what they were."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pyarrow as pa
from pydantic import ValidationError

from pmpo_offline.data import arrow, columns, hdf5
from pmpo_offline.data.card import card
from pmpo_offline.data.consistency import problems
from pmpo_offline.data.ids import METADATA_FILE, dataset_path, home, resolve, standing, stands
from pmpo_offline.data.schema import SCHEMA_VERSION, FileInfo, Metadata, schemas
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.files import atomic_directory, file_lock, refusal
from pmpo_offline.runtime.hashing import hash_file

__all__ = ["Format", "dataset_path", "file_lock", "home", "read_metadata", "resolve", "standing", "stands", "write"]

Format = Literal["arrow", "hdf5"]


def write(
    directory: Path,
    metadata: Metadata,
    tables: Mapping[str, pa.Table],
    *,
    format: Format = "arrow",
    overwrite: bool = False,
    sidecars: Mapping[str, bytes] | None = None,
) -> Metadata:
    """Write a dataset and return its metadata with every file's size and hash.

    `tables` are "transitions" and "episodes" (and "candidates"), or "responses"; `sidecars` are further files by name.
    Writers of one namespace wait for each other. Raises `UserError` if something stands in the way, and
    `PmpoOfflineError` if the tables contradict the metadata or the disk refuses; then nothing of the dataset remains.
    """
    content = _conform(tables)
    if wrong := problems(metadata, content):
        raise PmpoOfflineError(f"dataset {metadata.id} is not written, its content is inconsistent: {wrong[0]}")
    try:
        with atomic_directory(directory, METADATA_FILE, "dataset", overwrite) as partial:
            return _fill(partial, metadata, content, format, sidecars or {})
    except OSError as error:
        elsewhere = "set PMPO_OFFLINE_DATASETS to another folder"
        raise PmpoOfflineError(refusal(directory, error, elsewhere)) from error


def read_metadata(directory: Path) -> Metadata:
    """Read dataset.json; one line for what is missing, malformed or of another schema version."""
    path = directory / METADATA_FILE
    try:
        content = json.loads(path.read_bytes())
        version = content["schema_version"]
        if version == SCHEMA_VERSION:
            return Metadata.model_validate(content)
    except OSError as error:
        raise PmpoOfflineError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise PmpoOfflineError(f"{path} is damaged: field {field}: {first['msg']}; build the dataset again") from error
    except (ValueError, KeyError, TypeError) as error:
        raise PmpoOfflineError(f"{path} is damaged: no JSON with a schema_version; build the dataset again") from error
    raise UserError(
        f"{directory} has schema version {version}, this pmpo-offline reads {SCHEMA_VERSION}: "
        "build it again with --overwrite, or install the pmpo-offline that wrote it"
    )


def size_problems(directory: Path, metadata: Metadata) -> list[str]:
    """Return one line for every file that is missing or not of its recorded size."""
    found = []
    for name, info in metadata.files.items():
        path = directory / name
        if not path.is_file():
            found.append(f"{name}: missing")
        elif (size := path.stat().st_size) != info.bytes:
            found.append(f"{name}: {size} bytes instead of {info.bytes}")
    return found


def read_tables(directory: Path, metadata: Metadata) -> dict[str, pa.Table]:
    """Open the tables of either form; the Arrow form is mapped into memory, the HDF5 form read."""
    names = [Path(name).stem for name in metadata.files if name.endswith(".arrow")]
    try:
        return arrow.read(directory, names) if names else hdf5.read(directory, metadata)
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise PmpoOfflineError(f"{directory} cannot be read: {line}; build it again with --overwrite") from error


def _conform(tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """Give the tables their exact schema, with one way to say that a score is absent: null, never NaN."""
    content = dict(tables)
    try:
        for name, schema in schemas(content).items():
            if name not in content:
                continue  # said by `problems`, in better words
            table = content[name].select(schema.names).cast(schema).combine_chunks()
            if "score" in schema.names:
                scores = columns.score_array(columns.vector(table, "score"), schema.field("score").type)
                table = columns.replace(table, score=scores)
            content[name] = table
    except (KeyError, AttributeError, pa.ArrowException) as error:
        raise PmpoOfflineError(f"the tables do not fit the schema: {str(error).splitlines()[0]}") from error
    return content


def _fill(
    partial: Path, metadata: Metadata, tables: dict[str, pa.Table], format: Format, sidecars: Mapping[str, bytes]
) -> Metadata:
    """Write every file; dataset.json comes last and says what the others must be."""
    if format == "hdf5":
        hdf5.write(partial, metadata, tables)
    else:
        arrow.write(partial, tables)
    for name, payload in sidecars.items():
        (partial / name).write_bytes(payload)
    (partial / "README.md").write_text(card(metadata, list(tables), format), encoding="utf-8")
    files = sorted(path for path in partial.rglob("*") if path.is_file())
    written = metadata.model_copy(
        update={
            "files": {
                path.relative_to(partial).as_posix(): FileInfo(sha256=hash_file(path), bytes=path.stat().st_size)
                for path in files
            }
        }
    )
    (partial / METADATA_FILE).write_text(written.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return written
