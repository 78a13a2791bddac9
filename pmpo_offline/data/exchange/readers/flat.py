"""Named arrays, one row a step, from an .npz, .hdf5 or .parquet file: what D4RL, OGBench and RLDS files have in common.

Nothing is unpickled, and an array is read only when it is asked for.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pmpo_offline.data.exchange.readers import checks
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import UserError

Array = NDArray[Any]
_HDF5 = (".hdf5", ".h5")
Kind = Literal["matrix", "actions", "vector", "flags"]
"""How an array is checked, and what it is read as: the methods of `Flat`."""
SUFFIXES = (".npz", *_HDF5, ".parquet")


@dataclass(frozen=True)
class Flat:
    """The arrays of one file; slashes in names are groups of an HDF5 file."""

    path: Path
    names: frozenset[str]
    load: Callable[[str], Array]
    """Return one array as it is stored."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Of an HDF5 file."""

    def need(self, *names: str) -> None:
        """Raise `UserError` that names every array which is missing."""
        if missing := [name for name in names if name not in self.names]:
            raise UserError(
                f"{self.path} lacks {', '.join(missing)}: it holds {', '.join(sorted(self.names)[:12]) or 'nothing'}"
            )

    def __getitem__(self, name: str) -> Array:
        """Return one array; `UserError` where the file is damaged."""
        self.need(name)
        with _readable(self.path):
            return self.load(name)

    def read(self, kinds: Mapping[str, Kind]) -> dict[str, Array]:
        """Return the arrays of these names and kinds; `UserError` unless all have as many rows, and at least one."""
        self.need(*kinds)
        found: dict[str, Array] = {}
        for done, (name, kind) in enumerate(kinds.items()):
            progress.report("read arrays", done, len(kinds))
            found[name] = getattr(self, kind)(name)
        progress.report("read arrays", len(kinds), len(kinds))
        (first, values), *others = found.items()
        for name, each in others:
            if len(each) != len(values):
                raise UserError(
                    f"{self.path}: {first} has {len(values)} rows and {name} has {len(each)}: "
                    "every array needs one row a step"
                )
        if not len(values):
            raise UserError(f"{self.path}: {first} holds no rows")
        return found

    def matrix(self, name: str) -> NDArray[np.float32]:
        """Return (M, width) float32; `UserError` for images and other shapes, NaN and infinity."""
        values = self[name]
        if values.ndim != 2 or not values.shape[1]:
            kind = "images are" if values.ndim >= 3 else "that shape is"
            raise UserError(
                f"{self.path}: {name} has shape {values.shape}, and {kind} not supported: write rows of numbers (M, n)"
            )
        return checks.floats(values, f"{self.path}: {name}")

    def actions(self, name: str) -> NDArray[np.float32]:
        """Return (M, A) float32; `UserError` for discrete actions too."""
        values = self[name]
        if values.dtype.kind in "iub":
            raise UserError(
                f"{self.path}: {name} is of whole numbers ({values.dtype}): the policies here act in continuous spaces "
                "only, discrete actions cannot be imported"
            )
        return self.matrix(name)

    def vector(self, name: str) -> NDArray[np.float32]:
        """Return (M,) float32, as (M, 1) is stored too."""
        values = self[name]
        if values.ndim != 1 and values.shape[1:] != (1,):
            raise UserError(f"{self.path}: {name} has shape {values.shape} where one number a row is due")
        return checks.floats(values.reshape(-1), f"{self.path}: {name}")

    def flags(self, name: str) -> NDArray[np.bool_]:
        """Return (M,) Booleans, stored as such or as 0 and 1."""
        return checks.flags(self.vector(name), f"{self.path}: {name}")


def open_flat(path: Path) -> Flat:
    """Open a file of named arrays; `UserError` for one that is missing, empty, damaged or of another kind."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    if not path.stat().st_size:
        raise UserError(f"{path} is empty")
    with _readable(path):
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return Flat(path, frozenset(file.files), partial(_from_npz, path))
        if path.suffix in _HDF5:
            names: set[str] = set()
            with h5py.File(path) as file:
                file.visititems(lambda name, item: names.add(name) if isinstance(item, h5py.Dataset) else None)
                return Flat(path, frozenset(names), partial(_from_hdf5, path), dict(file.attrs))
        if path.suffix == ".parquet":
            return Flat(path, frozenset(pq.read_schema(path).names), partial(_from_parquet, path))
    raise UserError(f"{path}: files of arrays end in {', '.join(SUFFIXES)}")


def joined(shards: Sequence[Flat], folder: Path) -> Flat:
    """Return the rows of several files as one, in the order given; a name counts if every file has it."""
    names = frozenset.intersection(*(shard.names for shard in shards))
    return Flat(folder, names, lambda name: np.concatenate([shard[name] for shard in shards]))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError) as error:
        raise _damaged(path, error) from None
    except (zipfile.BadZipFile, zlib.error, pa.ArrowException) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return UserError(f"{path} cannot be read, it is damaged or no {path.suffix} file: {reason}; get it again")


def _from_npz(path: Path, name: str) -> Array:
    with np.load(path, allow_pickle=False) as file:
        values: Array = file[name]
        return values


def _from_hdf5(path: Path, name: str) -> Array:
    with h5py.File(path) as file:
        stored = file[name]
        if stored.dtype == np.float64:
            stored = stored.astype(np.float32)  # on its way from the disk: never twice the memory
        values: Array = np.asarray(stored[()])
        return values


def _from_parquet(path: Path, name: str) -> Array:
    column = pq.read_table(path, columns=[name]).column(name).combine_chunks()
    if column.null_count:
        raise ValueError(f"{name} holds nulls")
    if not pa.types.is_list(column.type) and not pa.types.is_fixed_size_list(column.type):
        values: Array = column.to_numpy(zero_copy_only=False)
        return values
    flat = column.flatten()
    width = len(flat) // max(1, len(column))
    if pa.types.is_list(column.type) and (np.diff(column.offsets.to_numpy()) != width).any():
        raise ValueError(f"the lists of {name} are of unequal lengths")
    values = flat.to_numpy(zero_copy_only=False).reshape(len(column), width)
    return values
