"""Origin of a source: the dataset of this package that it was exported from, and the hashes of its files."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pmpo_offline.data.schema import FileInfo, Metadata, References
from pmpo_offline.data.storage import METADATA_FILE, SEAL_FILE
from pmpo_offline.runtime.files import from_json
from pmpo_offline.runtime.hashing import hash_bytes, hash_file

MARKER = "pmpo_offline.json"
"""File that describes an export, and marks the folder as one that may be overwritten."""

_ABOUT = (MARKER, METADATA_FILE, SEAL_FILE, "README.md")
_NO_EXPORT = (OSError, ValueError, KeyError, TypeError, AttributeError)
"""What reading the folder of something else raises; a `ValidationError` is a `ValueError`."""
_LISTED = 100
"""Up to this number of files, the metadata lists each file's hash."""


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
        content = _described(folder)
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
        if name not in _ABOUT and not any(part.startswith(".") for part in name.split("/"))
    }


def unchanged(folder: Path) -> dict[str, Any] | None:
    """Return the metadata of a dataset whose export, or which itself, is in `folder`, unchanged; None for all else."""
    try:
        content = _described(folder)
        files = {name: info for name, info in content["files"].items() if name not in _ABOUT}
        same = files == {name: info.model_dump() for name, info in files_in(folder).items()}
        return {**content["dataset"], "files": files} if same else None
    except _NO_EXPORT:
        return None


def _described(folder: Path) -> dict[str, Any]:
    """Return what the marker of an export holds; of a dataset itself the same, its format None."""
    if (folder / MARKER).is_file():
        return dict(from_json((folder / MARKER).read_bytes()))
    metadata = from_json((folder / METADATA_FILE).read_bytes())
    return {"dataset": metadata, "format": None, "files": metadata.get("files")}


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
