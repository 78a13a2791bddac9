"""Named arrays in one file, whole or absent: what a build keeps between its steps."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pmpo_offline.runtime.errors import PmpoOfflineError


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays beside `path`, see them safely on the disk, and rename; raises `OSError` if the disk refuses."""
    scratch = path.with_suffix(".tmp")
    try:
        with scratch.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def load_arrays(path: Path, names: Iterable[str]) -> dict[str, Any]:
    """Read the arrays of these names; `PmpoOfflineError` if the file is damaged or lacks one."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in names}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise PmpoOfflineError(f"{path} is damaged ({error}): delete it and run the same command again") from None
