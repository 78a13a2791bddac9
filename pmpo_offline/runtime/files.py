"""Folders and files that are whole or absent: written beside their place, flushed to the disk, renamed into it at once.

<parent>/.<name>.partial     while it is written; what a killed writer left, the next one removes
<parent>/<name>              the folder; nothing in it changes after the rename
<parent>/.<name>.replaced    for the moment between two renames when a folder is overwritten

Files hold JSON, NumPy arrays (.npz) or tensors (.safetensors).
"""

from __future__ import annotations

import errno
import json
import math
import os
import platform
import re
import shutil
import stat
import threading
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmpo_offline.runtime.errors import PmpoOfflineError, UserError, reason_of, refusal
from pmpo_offline.runtime.locks import file_lock

if TYPE_CHECKING:
    from zipfile import ZipFile

    from numpy.typing import NDArray
    from torch import Tensor

    Array = NDArray[Any]

_AGAIN = "delete it and run the same command again"
_PARTS = re.compile(r"(\d+)")
_BLOCK = 2**24
DENSEST = 1100
"""Bytes that one stored byte may expand to: deflate reaches 1032."""


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Return paths sorted by name, numbers in them by their size: part-2 comes before part-10."""
    return sorted(paths, key=lambda path: [int(part) if part.isdecimal() else part for part in _PARTS.split(str(path))])


@contextmanager
def atomic_directory(directory: Path, marker: str, what: str, overwrite: bool) -> Iterator[Path]:
    """Yield an empty folder to fill, which becomes `directory` when the block ends without an error.

    With `overwrite`, an existing folder is replaced if it holds the file `marker`, as every `what` does. Writers of one
    parent folder wait for each other. Raises `UserError` if another folder is in the way, and `OSError` if the disk
    refuses; then, and after Ctrl-C, everything is as it was.
    """
    partial = directory.with_name(f".{directory.name}.partial")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(directory.parent):
        _tidy(directory, partial)
        _clear_the_way(directory, marker, what, overwrite)
        try:
            partial.mkdir()
            yield partial
            mode = _mode_of_new_files(partial)
            for path in [*partial.rglob("*"), partial]:
                if path.is_file():
                    path.chmod(mode)
                _flush(path)
            if directory.exists():
                directory.rename(_replaced(directory))
            partial.rename(directory)
            _flush(directory.parent)
            shutil.rmtree(_replaced(directory), ignore_errors=True)
        except BaseException:  # Ctrl-C too
            _tidy(directory, partial)
            raise


def remove_directory(directory: Path) -> None:
    """Remove a folder at once: what is left where this is interrupted is a partial folder; `OSError` if refused."""
    partial = directory.with_name(f".{directory.name}.partial")
    with file_lock(directory.parent):
        if partial.exists():
            shutil.rmtree(partial)
        directory.rename(partial)
        _flush(directory.parent)
        shutil.rmtree(partial)


def recover(directory: Path) -> None:
    """Bring back a folder that a writer had moved aside to replace it and was killed; wait for a writer at work."""
    if directory.exists() or not (replaced := _replaced(directory)).exists():
        return
    with suppress(OSError), file_lock(directory.parent):
        if not directory.exists():
            replaced.rename(directory)


def moved_aside(names: Collection[str]) -> list[str]:
    """Return the names of folders for `recover` among the names in their parent."""
    kept = [name.removeprefix(".").removesuffix(".replaced") for name in names if name.endswith(".replaced")]
    return [name for name in kept if name not in names]


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a scratch path beside `path`; it becomes `path`, flushed to the disk, if the block ends without an error.

    Two writers of one file do not disturb each other: the last one wins. Raises `OSError` of `path` if the disk
    refuses; then the file is what it was.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Another ending than the file's, because `glob("*.parquet")` finds hidden files.
    scratch = path.with_name(f".{path.name}.{_writer()}.tmp")
    try:
        mode = _mode_of_new_files(path.parent)
        yield scratch
        scratch.chmod(mode)
        _flush(scratch)
        scratch.replace(path)
    except OSError as error:
        error.filename = str(path)  # not the scratch file
        raise
    finally:
        scratch.unlink(missing_ok=True)


def _mode_of_new_files(folder: Path) -> int:
    """Return the permissions that the umask gives a new file: some libraries write files that only we may read."""
    probe = folder / f".mode.{_writer()}.tmp"
    probe.touch()
    try:
        return stat.S_IMODE(probe.stat().st_mode)
    finally:
        probe.unlink()


def _writer() -> str:
    """Return a name of this thread among those of all machines that share the folder."""
    return f"{platform.node()}-{os.getpid()}-{threading.get_native_id()}"


def finite(value: Any) -> Any:
    """Return a JSON value with None for every infinite number and NaN, however deep: other programs refuse them."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_text(path: Path, content: str) -> None:
    """Write a UTF-8 file, whole or absent; raises `OSError` if the disk refuses."""
    with atomic_file(path) as scratch:
        scratch.write_text(content, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or absent; raises `OSError` if the disk refuses."""
    write_text(path, json.dumps(finite(content), indent=1, allow_nan=False))


def read_json(path: Path, remedy: str = _AGAIN) -> dict[str, Any]:
    """Read a JSON object; `PmpoOfflineError` with `remedy` at its end if there is none or the file is damaged."""
    try:
        content = from_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(path, error, remedy) from None
    if not isinstance(content, dict):
        raise _damaged(path, "it holds no JSON object", remedy)
    return content


def from_json(content: bytes | str) -> Any:
    """Parse JSON; `ValueError` if it is malformed or nested too deeply for Python's parser."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def from_toml(content: bytes | str) -> dict[str, Any]:
    """Parse TOML; `ValueError` if it is malformed, not UTF-8 or nested too deeply for Python's parser."""
    import tomllib  # here, so that --help does not import it

    try:
        return tomllib.loads(content if isinstance(content, str) else content.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; `UserError` if it is malformed, `OSError` if it cannot be read."""
    try:
        return deepcopy(_parsed(path.read_bytes()))
    except ValueError as error:
        raise UserError(f"{path}: not valid TOML: {error}") from None


_parsed = lru_cache(512)(from_toml)  # by content: one id is found by reading every recipe, and parsing takes the time


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write named arrays as one .npz file, whole or absent; raises `OSError` if the disk refuses."""
    import zipfile

    import numpy as np

    with atomic_file(path) as scratch, zipfile.ZipFile(scratch, "w") as archive:
        for name, each in arrays.items():
            values = np.asanyarray(each)
            add_array(archive, name, values.shape, row_blocks(values))


def row_blocks(values: Array) -> Iterator[Array]:
    """Yield an array in blocks of rows of some `_BLOCK` bytes."""
    if not values.nbytes or values.nbytes <= _BLOCK:
        yield values
        return
    rows = max(1, _BLOCK * len(values) // values.nbytes)
    for start in range(0, len(values), rows):
        yield values[start : start + rows]


def add_array(archive: ZipFile, name: str, shape: tuple[int, ...], blocks: Iterator[Array]) -> None:
    """Add an array of this shape, given in blocks of rows, at least one, to an .npz file, as `numpy.savez` does."""
    import numpy as np
    from numpy.lib import format as npy

    block = next(blocks)
    if block.dtype.hasobject:
        raise ValueError(f"{name} holds objects, which are not saved")
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
    import zipfile

    try:
        return {name: join(array_blocks(path, name)) if join else load_array(path, name) for name in names}
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(path, error) from None


def array_names(path: Path) -> list[str]:
    """Return the names of the arrays in an .npz file; errors are those of `load_array`."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def load_array(path: Path, name: str) -> Array:
    """Return one array of an .npz file; errors are those of `array_blocks`."""
    import numpy as np

    blocks = [*array_blocks(path, name)]
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def array_blocks(path: Path, name: str) -> Iterator[Array]:
    """Yield one array of an .npz file in blocks of rows of some `_BLOCK` bytes.

    NumPy allocates what an array's header says before it reads anything, and reads no further, so not always to where
    the checksum is compared. Here the header must agree with the size of what is stored, and all of it is read.

    Raises:
        KeyError: there is no array of this name.
        ValueError: it holds objects, or another number of bytes than its header says.
        OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error: the file is damaged.
    """
    import zipfile

    import numpy as np
    from numpy.lib import format as npy

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
        if dtype.hasobject:
            raise ValueError(f"{name} holds objects, which are not loaded")
        if count * dtype.itemsize != stored or stored > DENSEST * min(info.compress_size, packed) + 2**20:
            raise ValueError(f"{name} declares {count * dtype.itemsize:,} bytes, and {stored:,} are stored")
        whole = by_columns or not count or stored <= _BLOCK
        rows = shape[0] if whole and shape else max(1, _BLOCK * shape[0] // stored) if shape else 1
        for start in range(0, max(1, shape[0] if shape else 1), max(1, rows)):
            part = (min(rows, shape[0] - start), *shape[1:]) if shape else ()
            size = math.prod(part) * dtype.itemsize
            if len(content := bytearray(member.read(size))) != size:
                raise EOFError(f"{name} is cut off")
            yield np.ndarray(part, dtype, content, order="F" if by_columns else "C")
        member.read(1)  # at the end the checksum is compared


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
        raise _damaged(path, error) from None


def _damaged(path: Path, reason: object, remedy: str = _AGAIN) -> PmpoOfflineError:
    return PmpoOfflineError(f"{path} is damaged ({reason}): {remedy}")


def _replaced(directory: Path) -> Path:
    return directory.with_name(f".{directory.name}.replaced")


def _tidy(directory: Path, partial: Path) -> None:
    """Remove what a failed or killed writer left: a partial folder, or a replaced one without a successor."""
    if partial.exists():
        shutil.rmtree(partial)
    if (replaced := _replaced(directory)).exists():
        shutil.rmtree(replaced) if directory.exists() else replaced.rename(directory)


def _clear_the_way(directory: Path, marker: str, what: str, overwrite: bool) -> None:
    empty = directory.is_dir() and not any(directory.iterdir())
    if directory.is_symlink() or (directory.exists() and not empty and not (directory / marker).is_file()):
        raise UserError(f"{directory} exists and is no {what}: move it away, it will not be overwritten")
    if directory.exists() and not empty and not overwrite:
        raise UserError(f"{directory} exists already: use --overwrite to replace it")


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
