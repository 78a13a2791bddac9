"""NumPy arrays (.npz) and tensors (.safetensors) in files, whole or absent; what a file declares is not trusted."""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from pmpo_offline.runtime.errors import PmpoOfflineError, reason_of, refusal
from pmpo_offline.runtime.files import atomic_file, damaged, from_json

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[Any]
_BLOCK = 2**24
DENSEST = 1100
"""Bytes that one stored byte may expand to: deflate reaches 1032."""


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write named arrays as one .npz file, whole or absent; `ValueError` for objects, `OSError` if the disk refuses."""
    in_rows = {name: np.asarray(each, order="C") for name, each in arrays.items()}
    for name, values in in_rows.items():
        _check_numbers(name, values.dtype)
    with atomic_file(path) as scratch, scratch.open("wb") as file:
        np.savez(file, **in_rows)  # type: ignore[arg-type]


def add_array(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], blocks: Iterator[Array]) -> None:
    """Add an array of this shape, given in blocks of rows, at least one, to an .npz file, as `numpy.savez` does."""
    block = next(blocks)
    _check_numbers(name, block.dtype)
    header = {"descr": npy.dtype_to_descr(block.dtype), "fortran_order": False, "shape": shape}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        npy.write_array_header_1_0(file, header)
        for values in chain([block], blocks):
            file.write(np.ascontiguousarray(values).tobytes())


def load_arrays(
    path: Path, names: Iterable[str], join: Callable[[Iterable[Array]], Array] | None = None
) -> dict[str, Any]:
    """Read the arrays of these names; `PmpoOfflineError` if the file is damaged or lacks one.

    `join` makes an array of its blocks of rows, numpy.concatenate by default.
    """
    try:
        return {name: (join or _whole)(array_blocks(path, name)) for name in names}
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise damaged(path, error) from None


def _whole(blocks: Iterable[Array]) -> Array:
    parts = [*blocks]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def array_names(path: Path) -> list[str]:
    """Return the names of the arrays in an .npz file; errors are those of `array_blocks`."""
    with zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def array_blocks(path: Path, name: str) -> Iterator[Array]:
    """Yield one array of an .npz file in blocks of rows of some `_BLOCK` bytes.

    NumPy allocates what an array's header says before it reads anything, and reads no further, so not always to where
    the checksum is compared. Here the header must agree with the size of what is stored, and all of it is read.

    Raises:
        KeyError: there is no array of this name.
        ValueError: it holds objects, or another number of bytes than its header says.
        OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error: the file is damaged.
    """
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
        info, packed = archive.getinfo(f"{name}.npy"), path.stat().st_size
        version = npy.read_magic(member)
        header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
        if header is None:
            raise ValueError(f"{name} is of version {version} of the format")
        try:
            shape, by_columns, dtype = header(member)
        except Exception as error:  # of NumPy's, and of the Python parser that it calls
            raise ValueError(f"{name} has no header of an array ({reason_of(error)})") from None
        count, stored = math.prod(shape), info.file_size - member.tell()
        _check_numbers(name, dtype)
        if count * dtype.itemsize != stored or stored > DENSEST * min(info.compress_size, packed) + 2**20:
            raise ValueError(f"{name} declares {count * dtype.itemsize:,} bytes, and {stored:,} are stored")
        length = shape[0] if shape else 1
        whole = by_columns or not count or stored <= _BLOCK
        rows = max(1, length if whole else _BLOCK * length // stored)
        for start in range(0, max(1, length), rows):
            part = (min(rows, length - start), *shape[1:]) if shape else ()
            size = math.prod(part) * dtype.itemsize
            if len(content := bytearray(member.read(size))) != size:
                raise EOFError(f"{name} is cut off")
            yield np.ndarray(part, dtype, content, order="F" if by_columns else "C")
        member.read(1)  # at the end the checksum is compared


def _check_numbers(name: str, dtype: np.dtype[Any]) -> None:
    if dtype.hasobject:
        raise ValueError(f"{name} holds objects, not numbers or texts of a fixed width")


def save_tensors(path: Path, tensors: Mapping[str, Tensor], **facts: str) -> None:
    """Write tensors and facts about them; `PmpoOfflineError` if the disk refuses, and then an old file is kept."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with atomic_file(path) as scratch:
            save_file(stored, scratch, metadata=facts)
            _sort_facts(scratch)
    except (OSError, SafetensorError) as error:
        raise PmpoOfflineError(refusal(path, error, "write elsewhere")) from None


def _sort_facts(path: Path) -> None:
    """Write the facts of a safetensors file in order, which is another every time: equal content is equal bytes."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = from_json(file.read(length))
        header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
        content = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
        if len(content) == length:
            file.seek(8)
            file.write(content)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `save_tensors` wrote; `PmpoOfflineError` if the file is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise damaged(path, error) from None
