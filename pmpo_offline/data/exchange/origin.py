"""Where a source comes from: the dataset of this package that it was exported from, and the hashes of its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pmpo_offline.data.schema import References
from pmpo_offline.data.storage import METADATA_FILE
from pmpo_offline.runtime.hashing import hash_bytes, hash_file

MARKER = "pmpo_offline.json"
"""Says what an export is of, and that the folder is one and may be overwritten."""

_LISTED = 100
"""How many files have their hashes in the metadata one by one."""


@dataclass(frozen=True)
class Origin:
    """The task, the reference scores and the settings of the dataset that was exported."""

    task: str
    references: References | None
    settings: Mapping[str, Any]
    """What its provenance says of how it was built."""


def origin(folder: Path) -> Origin | None:
    """Return where an export in `folder`, or a dataset in HDF5 form, comes from; None for a folder that is neither."""
    try:
        path = folder / MARKER
        said = json.loads(path.read_bytes())["dataset"] if path.is_file() else _own(folder)
        references = said["references"]
        scores = None if references is None else References.model_validate(references)
        return Origin(str(said["task"]), scores, dict(said["provenance"]["settings"]))
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return None


def hashes_of(files: Mapping[str, Path]) -> dict[str, str]:
    """Return the sha256 of every file; of many files, that of the list which `sha256sum` prints of them."""
    each = {name: hash_file(path) for name, path in sorted(files.items())}
    if len(each) <= _LISTED:
        return each
    listed = "".join(f"{digest}  {name}\n" for name, digest in each.items())
    return {f"list of {len(each)} files": hash_bytes([listed.encode()])}


def _own(folder: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((folder / METADATA_FILE).read_bytes())
    return said
