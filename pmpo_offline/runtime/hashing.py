"""What follows from content or a key alone: hashes, the identities by which things are found, and random words.

An identity hashes all that a result depends on: content, labels, every seed, settings, versions, and the revision
counter of the code that made it. Whatever is stored under another identity is refused or made again, never continued.
All hashes are computed here.

Random words come from NumPy's bit generators, whose streams NumPy promises to keep; it does not promise that for the
distributions of `Generator`. So a dataset can be built again from its seed, byte for byte, with later versions.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
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


@cache
def version(package: str) -> str:
    """Return the installed version of a package; `importlib.metadata.PackageNotFoundError` if there is none.

    importlib reads all of a package's metadata each time, milliseconds for the key of every row.
    """
    return importlib.metadata.version(package)


def random_words(count: int, *key: int | str) -> NDArray[np.uint64]:
    """Return `count` uniform 64-bit words, a pure function of `key` (non-negative integers and words).

    A shorter draw from the same key is a prefix of a longer one.
    """
    import numpy as np  # here, so that what needs no numbers starts without it

    entropy = [part if isinstance(part, int) else int.from_bytes(part.encode(), "little") for part in key]
    words: NDArray[np.uint64] = np.random.PCG64(np.random.SeedSequence(entropy)).random_raw(count)
    return words


def uniforms(count: int, *key: int | str) -> NDArray[np.float64]:
    """Return `count` floats in [0, 1) from the 53 upper bits of `random_words`."""
    return (random_words(count, *key) >> 11).astype("float64") * 2.0**-53
