"""Origin of a source: the dataset of this package that it was exported from, and the hashes of its files."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pmpo_offline.data.schema import Metadata, References
from pmpo_offline.data.storage import METADATA_FILE
from pmpo_offline.runtime.files import from_json
from pmpo_offline.runtime.hashing import hash_bytes, hash_file

MARKER = "pmpo_offline.json"
"""File that describes an export, and marks the folder as one that may be overwritten."""

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
        path = folder / MARKER
        exported = path.is_file()
        content = from_json((path if exported else folder / METADATA_FILE).read_bytes())
        metadata = content["dataset"] if exported else content
        references = metadata["references"]
        scores = None if references is None else References.model_validate(references)
        whole = None
        with suppress(ValidationError):
            whole = Metadata.model_validate({**metadata, "files": {}})
        settings = dict(metadata["provenance"]["settings"])
        return Origin(str(metadata["task"]), scores, settings, content["format"] if exported else None, whole)
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return None


def hashes_of(files: Mapping[str, Path]) -> dict[str, str]:
    """Return the sha256 of every file; of many files, that of the list which `sha256sum` prints of them."""
    hashes = {name: hash_file(path) for name, path in sorted(files.items())}
    if len(hashes) <= _LISTED:
        return hashes
    listed = "".join(f"{digest}  {name}\n" for name, digest in hashes.items())
    return {f"list of {len(hashes)} files": hash_bytes([listed.encode()])}
