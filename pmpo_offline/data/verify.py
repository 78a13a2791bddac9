"""Everything that opening a dataset does not check: the hash of every file, and that the tables agree."""

from __future__ import annotations

from pathlib import Path

from pmpo_offline.data.consistency import problems
from pmpo_offline.data.ids import resolve
from pmpo_offline.data.storage import read_metadata, read_tables, size_problems
from pmpo_offline.runtime.errors import PmpoOfflineError
from pmpo_offline.runtime.hashing import hash_file


def verify(id_or_path: str | Path, home: Path | None = None) -> list[str]:
    """Return one line for every problem of a dataset; an empty list is a sound one.

    Raises `UserError` where there is no such dataset.
    """
    directory = resolve(id_or_path, home)
    try:
        metadata = read_metadata(directory)
        found = size_problems(directory, metadata)
        found += [
            f"{name}: edited after it was written (its sha256 differs)"
            for name, info in metadata.files.items()
            if not any(line.startswith(f"{name}: ") for line in found) and hash_file(directory / name) != info.sha256
        ]
        return found or problems(metadata, read_tables(directory, metadata))
    except PmpoOfflineError as error:
        return [str(error)]
    except OSError as error:
        return [f"{directory} cannot be read: {error}"]
