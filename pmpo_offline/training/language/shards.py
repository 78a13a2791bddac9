"""Tensors by name in a folder of safetensors files: only ever added to, by several processes at once, read by mapping.

<folder>/<hash of the names in it>.safetensors     whole: written beside its place, flushed, and renamed
<folder>/.<hash>.safetensors.<pid>.tmp             what a killed writer left; the next one removes it

It is a cache: a file that cannot be read, or whose tensors have changed since, is as good as absent.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pmpo_offline.runtime.errors import PmpoOfflineError
from pmpo_offline.runtime.files import atomic_file, file_lock, refusal
from pmpo_offline.runtime.hashing import hash_bytes

CHECKSUM = "crc32"
"""The entry of a file's metadata beside what its owner says: of all its tensors."""


@dataclass
class _File:
    path: Path
    opened: Any
    names: list[str]
    checksum: str | None
    """None once it was found right: a file is read for it when it is first used."""


class Shards:
    """Tensors of one sort.

    Args:
        folder: made when something is written.
        owner: says what the tensors are; a file that says something else is left alone.
    """

    def __init__(self, folder: Path, owner: Mapping[str, str]) -> None:
        self._folder, self._owner = folder, dict(owner)
        self.lost: list[tuple[Path, str]] = []
        """Files that could not be read, and why, until who tells of them empties it."""
        self._seen: set[str] = set()
        self._index: dict[str, _File] = {}  # by the tensors that they hold

    def __contains__(self, name: str) -> bool:
        """Whether the tensor was there at the last look, and is as it was written."""
        file = self._index.get(name)
        return file is not None and self._check(file)

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor, which is read from the disk where it is used. KeyError if there is none."""
        tensor: Tensor = self._index[name].opened.get_tensor(name)
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
        name = hash_bytes([",".join(sorted(tensors)).encode()])[:24]
        path = self._folder / f"{name}.safetensors"
        whole = {key: value.contiguous() for key, value in tensors.items()}
        content = save(whole, {**self._owner, CHECKSUM: _checksum(whole)})
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with file_lock(self._folder):
                for left in self._folder.glob(".*.tmp"):
                    left.unlink()
                with atomic_file(path) as scratch:
                    scratch.write_bytes(content)
        except OSError as error:
            raise PmpoOfflineError(refusal(self._folder, error, "choose another folder for the cache")) from error
        self._open(path)

    def _open(self, path: Path) -> None:
        self._seen.add(path.name)
        try:
            opened: Any = safe_open(path, framework="pt")
            owner, names = opened.metadata() or {}, opened.keys()
        except (SafetensorError, OSError) as error:
            if isinstance(error, FileNotFoundError):  # another process has just removed it
                return
            self._give_up(path, str(error).splitlines()[0])
            return
        checksum = owner.pop(CHECKSUM, None)
        if owner != self._owner:
            warnings.warn(f"{path} does not belong to this cache: leaving it alone", stacklevel=4)
            return
        self._index |= dict.fromkeys(names, _File(path, opened, names, checksum))

    def _check(self, file: _File) -> bool:
        """Whether a file's tensors are as they were written; if not it is removed, and what it held is unknown."""
        if file.checksum is None:
            return True
        if _checksum({name: file.opened.get_tensor(name) for name in file.names}) == file.checksum:
            file.checksum = None
            return True
        self._index = {name: each for name, each in self._index.items() if each is not file}
        self._give_up(file.path, "its checksum differs")
        return False

    def _give_up(self, path: Path, reason: str) -> None:
        self.lost.append((path, reason))
        with suppress(OSError):  # on a disk that may not be written it stays
            path.unlink()


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return the CRC-32 of contiguous tensors: the name and bytes of each, in the order of their names."""
    found = 0
    for name in sorted(tensors):
        found = zlib.crc32(name.encode(), found)
        found = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, found)
    return f"{found:08x}"
