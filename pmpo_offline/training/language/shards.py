"""Tensors by name in a folder of safetensors files: only ever added to, by several processes at once, read by mapping.

<folder>/<hash of the names in it>.safetensors     whole: written beside its place, flushed, and renamed
<folder>/.<hash>.partial                           what a killed writer left; the next one removes it

It is a cache: a file that cannot be read is as good as absent.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pmpo_offline.data.whole import alone_in, refusal
from pmpo_offline.errors import PmpoOfflineError


class Shards:
    """Tensors of one sort.

    Args:
        folder: made when something is written.
        owner: says what the tensors are; a file that says something else is left alone.
    """

    def __init__(self, folder: Path, owner: Mapping[str, str]) -> None:
        self._folder, self._owner = folder, dict(owner)
        self._seen: set[str] = set()
        self._index: dict[str, Any] = {}  # name -> the open file that holds it

    def __contains__(self, name: str) -> bool:
        """Whether the tensor was there at the last look."""
        return name in self._index

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor, which is read from the disk where it is used. KeyError if there is none."""
        tensor: Tensor = self._index[name].get_tensor(name)
        return tensor

    def look(self) -> None:
        """Open the files that have come since the last look."""
        paths = sorted(self._folder.glob("*.safetensors")) if self._folder.is_dir() else []
        for path in paths:
            if path.name not in self._seen:
                self._open(path)

    def write(self, tensors: Mapping[str, Tensor]) -> None:
        """Add tensors, in a file that is whole or absent.

        Raises:
            PmpoOfflineError: the disk is full, or may not be written.
        """
        if not tensors:
            return
        name = hashlib.sha256(",".join(sorted(tensors)).encode()).hexdigest()[:24]
        path, partial = self._folder / f"{name}.safetensors", self._folder / f".{name}.partial"
        content = save({key: value.contiguous() for key, value in tensors.items()}, self._owner)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with alone_in(self._folder):
                for left in self._folder.glob(".*.partial"):
                    left.unlink()
                try:
                    with partial.open("wb") as file:
                        file.write(content)
                        file.flush()
                        os.fsync(file.fileno())
                    partial.replace(path)
                except BaseException:  # Ctrl-C too
                    partial.unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise PmpoOfflineError(refusal(self._folder, error, "choose another folder for the cache")) from error
        self._open(path)

    def _open(self, path: Path) -> None:
        self._seen.add(path.name)
        try:
            file: Any = safe_open(path, framework="pt")
            owner, names = file.metadata() or {}, file.keys()
        except (SafetensorError, OSError) as error:
            if isinstance(error, FileNotFoundError):  # another process has just removed it
                return
            reason = str(error).splitlines()[0]
            warnings.warn(f"{path} cannot be read ({reason}): computing again what it held", stacklevel=4)
            path.unlink(missing_ok=True)
            return
        if owner != self._owner:
            warnings.warn(f"{path} does not belong to this cache: leaving it alone", stacklevel=4)
            return
        self._index |= dict.fromkeys(names, file)
