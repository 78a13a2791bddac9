"""Hashes, computed in this module only, and the identity by which everything that is reused is found.

An identity hashes all that a result depends on: content, labels, every seed, settings, versions, and the revision
counter of the code that made it. Whatever is stored under another identity is refused or made again, never continued.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def hash_bytes(parts: Iterable[bytes]) -> str:
    """Return the sha256 of byte strings, one after the other."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()


def hash_file(path: Path) -> str:
    """Return the sha256 of a file's content; `OSError` if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_json(content: Any, *, sort_keys: bool = True) -> str:
    """Return the sha256 of a JSON value; `TypeError` if it cannot be written as JSON.

    `sort_keys=False` is for hashes that were committed before keys were sorted.
    """
    return hash_bytes([json.dumps(content, sort_keys=sort_keys).encode()])


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 of named tensors with their dtypes and shapes, whatever their order."""
    import torch

    def content(name: str) -> bytes:
        tensor = tensors[name].detach().cpu().contiguous()
        header = f"{name}:{tensor.dtype}:{tuple(tensor.shape)}"
        return header.encode() + tensor.reshape(-1).view(torch.uint8).numpy().tobytes()

    return hash_bytes(content(name) for name in sorted(tensors))


def identity(**ingredients: Any) -> str:
    """Return the hash of everything that a result depends on, each ingredient a JSON value under its own name."""
    return hash_json(ingredients)
