"""Named arrays, one row a step, from an .npz, .hdf5 or .parquet file, and the checks that every number must pass.

Nothing is unpickled, and an array is read when it is used.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import h5py
import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow.parquet import ParquetFile

from pmpo_offline.data import mapping
from pmpo_offline.data.exchange.readers.rounding import as_float32
from pmpo_offline.data.mapping import gathered, slices
from pmpo_offline.data.opening import open_hdf5, open_parquet, refuse_pointer
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import UserError, reason_of
from pmpo_offline.runtime.files import array_blocks, array_names

Array = NDArray[Any]
LABELS = ("label", "labels", "infos/label", "infos/labels", "adv_ind")
"""Columns that are labels wherever they are: ours, and RECAP's indicator of the advantage (positive, negative)."""
EPISODES = ("episode", "episode_id", "episode_index", "traj_id", "trajectory_id", "trajectory_index", "trajectory")
"""Columns that number or name episodes."""
Kind = Literal["matrix", "actions", "vector", "flags"]
"""How an array is checked, and what it is read as: (M, n) or (M,) float32, (M,) Booleans, (M, 1) int32."""
Kinds = Mapping[str, Kind]
SUCCESS: Kinds = dict.fromkeys(
    (
        *("infos/success", "infos/is_success", "infos/goal_achieved"),
        *("success", "is_success", "task_success", "goal_achieved", "solved"),
    ),
    "flags",
)
"""What an array of the steps at which the task was solved may be called."""


@dataclass(frozen=True)
class Flat:
    """The arrays of one file; slashes in names are groups of an HDF5 file."""

    path: Path
    names: frozenset[str]
    load: Callable[[str], Array]
    """Return one array as it is stored."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Of an HDF5 file."""
    examined: tuple[int, int, int] | None = None
    """Inode, size and time of an HDF5 file when `open_hdf5` found it sound, which takes long with many arrays."""
    used: set[str] = field(default_factory=set)
    """Names of the arrays that were read."""
    partial: frozenset[str] = frozenset()
    """Names of the arrays that only some of several files have, which cannot be read."""

    def need(self, *names: str) -> None:
        """Raise `UserError` that names every array which is missing."""
        self._refuse_partial(names)
        if missing := [name for name in names if name not in self.names]:
            raise UserError(
                f"{self.path} lacks {', '.join(missing)}: it holds {', '.join(sorted(self.names)[:12]) or 'nothing'}"
            )

    def _refuse_partial(self, names: Iterable[str]) -> None:
        if found := [name for name in names if name in self.partial]:
            raise UserError(f"{self.path}: only some of the files hold {found[0]}: write it in all of them, or in none")

    def __getitem__(self, name: str) -> Array:
        """Return one array; `UserError` where the file is damaged."""
        self.need(name)
        self.used.add(name)
        with readable(self.path):
            return self.load(name)

    @property
    def unused(self) -> list[str]:
        """Names of the arrays that were not read, without those that describe the file."""
        return sorted(name for name in (self.names | self.partial) - self.used if not name.startswith("metadata/"))

    def read(
        self, kinds: Kinds, optional: Kinds = MappingProxyType({}), unused: NDArray[np.bool_] | None = None
    ) -> dict[str, Array]:
        """Return the arrays of these names and kinds, the `optional` ones if they are there.

        Rows that are `unused` mean nothing, may hold anything and are read as 0, of flags only NaN. Raises `UserError`
        unless all arrays have as many rows, and at least one.
        """
        self.need(*kinds)
        self._refuse_partial(optional)
        kinds = {**kinds, **{name: kind for name, kind in optional.items() if name in self.names}}
        found: dict[str, Array] = {}
        first, rows = "the marks", -1 if unused is None else len(unused)
        for done, (name, kind) in enumerate(kinds.items()):
            progress.report("read arrays", done, len(kinds))
            values = self[name]
            if rows < 0:
                first, rows = name, len(values)
            if len(values) != rows:
                raise UserError(
                    f"{self.path}: {first} has {rows} rows and {name} has {len(values)}: "
                    "every array needs one row a step"
                )
            if unused is not None and values.dtype.kind in "fiub":
                values = _without(values, unused & _is_nan(values) if kind == "flags" else unused)
            found[name] = _READ[kind](values, f"{self.path}: {name}")
        progress.report("read arrays", len(kinds), len(kinds))
        if not rows:
            raise UserError(f"{self.path}: {first} holds no rows")
        return found

    def feedback(self, column: str | None) -> tuple[str, Array] | None:
        """Return the name and the values of a column of feedback: the one that is named, else one of labels, if any.

        Raises `UserError` where two columns of labels differ and none is named.
        """
        self._refuse_partial([column] if column else LABELS)
        names = [column] if column else [name for name in LABELS if name in self.names]
        if not names:
            return None
        values = self[names[0]]
        if other := next((name for name in names[1:] if not np.array_equal(values, self[name])), None):
            raise UserError(
                f"{self.path}: {names[0]} and {other} differ: say which one counts, with --score {names[0]}"
            )
        return names[0], values

    def solved(self, arrays: Mapping[str, Array]) -> NDArray[np.bool_] | None:
        """Return the rows (M,) at which the task was solved, None if no array says so; `UserError` if two differ."""
        names = [name for name in SUCCESS if name in arrays]
        for name in names[1:]:
            if (arrays[name] != arrays[names[0]]).any():
                raise UserError(f"{self.path}: {names[0]} and {name} contradict each other: leave one of them out")
        return arrays[names[0]] if names else None


def checked(arrays: Mapping[str, Array], kinds: Kinds, where: object) -> dict[str, Array]:
    """Return arrays that were read already as their kinds; `UserError` for one that is not of its kind."""
    return {name: _READ[kind](arrays[name], f"{where}: {name}") for name, kind in kinds.items()}


def _is_nan(values: Array) -> NDArray[np.bool_]:
    """Return the rows (M,) that hold NaN."""
    if values.dtype.kind != "f":
        return np.zeros(len(values), np.bool_)
    return np.asarray(np.isnan(values).reshape(len(values), -1).any(axis=1))


def _without(values: Array, unused: NDArray[np.bool_]) -> Array:
    """Return values (M, …) with 0 in the rows that are unused."""
    empty = unused.reshape(-1, *[1] * (values.ndim - 1))
    return gathered(np.where(empty[rows], values.dtype.type(0), values[rows]) for rows in slices(len(values)))


@contextmanager
def opened(flat: Flat) -> Iterator[h5py.File]:
    """Open an HDF5 file that is read in many parts; `UserError` where it is damaged, or changed since."""
    with readable(flat.path):
        if _stamp(flat.path) != flat.examined:
            raise ValueError("it changed while it was read")
        with h5py.File(flat.path, "r") as file:
            yield file


def floats(values: Array, where: str) -> NDArray[np.float32]:
    """Return numbers as float32, rows first; `UserError` names the first row that is not finite (or overflows)."""
    if values.dtype.kind not in "fiub":
        texts = (value for value in values.flat if not isinstance(value, int | float))
        found = f"{next(texts, None)!r:.40}" if values.dtype.kind == "O" else values.dtype
        raise UserError(f"{where}: expected numbers, found {found}")
    numbers = values
    if values.dtype != np.float32 or not values.flags.c_contiguous or not values.ndim:
        name, rows_of = where.rpartition(": ")[2], values.reshape(-1) if not values.ndim else values
        numbers = gathered(as_float32(rows_of[rows], name) for rows in slices(len(rows_of)))
    # A sum is not finite if one term is not, and needs no array of Booleans; only what fails is searched.
    with np.errstate(over="ignore", invalid="ignore"):
        suspicious = not all(np.isfinite(numbers[rows].sum(dtype=np.float64)) for rows in slices(len(numbers)))
    if suspicious:
        bad = np.concatenate(
            [~np.isfinite(numbers[rows].reshape(-1, numbers[:1].size)).all(axis=1) for rows in slices(len(numbers))]
        )
        if bad.any():
            raise UserError(
                f"{where} holds NaN or infinite values, first in row {int(bad.argmax())} ({int(bad.sum())} rows in "
                "all): drop those episodes and import again"
            )
    return numbers


def flags(values: Array, where: str) -> NDArray[np.bool_]:
    """Return a column of zeros and ones as Booleans; `UserError` where it holds anything else."""
    numbers = floats(values.reshape(len(values), -1)[:, 0] if values.ndim > 1 else values, where)
    marked: NDArray[np.bool_] = numbers != 0
    if (numbers[marked] != 1).any():
        row = int(np.flatnonzero(marked)[(numbers[marked] != 1).argmax()])
        raise UserError(f"{where}: expected 0 or 1, found {numbers[row]:g} in row {row}")
    return marked


def _matrix(values: Array, where: str) -> NDArray[np.float32]:
    if values.ndim == 1 and values.dtype.kind in "fiub":  # one number a row
        values = values[:, None]
    if values.ndim != 2 or not values.shape[1]:
        kind = "images are" if values.ndim >= 3 else "that shape is"
        raise UserError(f"{where} has shape {values.shape}, and {kind} not supported: write rows of numbers (M, n)")
    return floats(values, where)


def _actions(values: Array, where: str) -> Array:
    return choices(values, where) if values.dtype.kind in "iub" else _matrix(values, where)


def choices(values: Array, where: str) -> NDArray[np.int32]:
    """Return discrete actions, one whole number from 0 or one-hot a row, as (n, 1); `UserError` for anything else."""
    if is_one_hot(values):
        values = values.argmax(axis=1)
    if values.shape not in ((len(values),), (len(values), 1)):
        raise UserError(
            f"{where} is of whole numbers, of shape {values.shape}: one discrete action a step can be "
            "read; number the combinations of several"
        )
    numbers = values.reshape(-1, 1).astype(np.int64)
    if ((numbers < 0) | (numbers >= 2**31)).any():
        raise UserError(f"{where}: discrete actions are counted from 0, and one is {int(numbers.min())}")
    return numbers.astype(np.int32)


def is_one_hot(values: Array) -> bool:
    """Return whether every row of a matrix is one 1 among zeros, in two columns or more, each of which is used."""
    if values.ndim != 2 or values.shape[1] < 2 or values.dtype.kind not in "fiub" or not len(values):
        return False
    ones = values == 1
    return bool(((values == 0) | ones).all() and (ones.sum(axis=1) == 1).all() and ones.any(axis=0).all())


def _vector(values: Array, where: str) -> NDArray[np.float32]:
    if values.ndim != 1 and values.shape[1:] != (1,):
        raise UserError(f"{where}: expected one number a row, found shape {values.shape}")
    return floats(values.reshape(-1), where)


_READ: Mapping[Kind, Callable[[Array, str], Array]] = {
    "matrix": _matrix,
    "actions": _actions,
    "vector": _vector,
    "flags": lambda values, where: flags(_vector(values, where), where),
}


def open_flat(path: Path) -> Flat:
    """Open a file of named arrays; `UserError` for one that is empty or damaged."""
    if not path.stat().st_size:
        raise UserError(f"{path} is empty")
    refuse_pointer(path)
    with readable(path):
        if path.suffix == ".npz":
            if not zipfile.is_zipfile(path):
                raise ValueError("it is no archive of arrays")
            return Flat(path, _printable(array_names(path)), lambda name: gathered(array_blocks(path, name)))
        if path.suffix == ".parquet":
            with open_parquet(path) as table:
                return Flat(path, _printable(table.schema_arrow.names), partial(_from_parquet, path))
        names: set[str | bytes] = set()
        examined = _stamp(path)
        with open_hdf5(path) as file:
            file.visititems(lambda name, item: names.add(name) if isinstance(item, h5py.Dataset) else None)
            return Flat(path, _printable(names), partial(_from_hdf5, path, examined), dict(file.attrs), examined)


def _printable(names: Iterable[str | bytes]) -> frozenset[str]:
    """Return the names that a message can show on its line; damaged ones, bytes where not UTF-8, are no array's."""
    return frozenset(name for name in names if isinstance(name, str) and name.isprintable())


def joined(shards: Sequence[Flat], folder: Path) -> Flat:
    """Return the rows of several files as one, in the order given; a name counts if every file has it."""
    names = frozenset.intersection(*(shard.names for shard in shards))
    partial = frozenset[str]().union(*(shard.names for shard in shards)) - names
    return Flat(folder, names, lambda name: gathered(_alike(shards, name)), partial=partial)


def _alike(shards: Sequence[Flat], name: str) -> Iterator[Array]:
    """Yield an array of each file; `UserError` where its rows have another shape than in the first one."""
    first: tuple[int, ...] | None = None
    for shard in shards:
        values = shard[name]
        first = values.shape[1:] if first is None else first
        if values.shape[1:] != first:
            raise UserError(
                f"{shard.path}: rows of {name} have shape {values.shape[1:]}, and {first} in {shards[0].path.name}: "
                "import files of one kind"
            )
        yield values


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what libraries raise for a damaged file into `UserError`."""
    try:
        yield
    except (
        *(OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError),
        *(zipfile.BadZipFile, zlib.error, pa.ArrowException, pl.exceptions.PolarsError, pl.exceptions.PanicException),
    ) as error:
        raise UserError(
            f"{path} cannot be read, it is damaged or no {path.suffix} file: {reason_of(error)}; get it again"
        ) from None


def _stamp(path: Path) -> tuple[int, int, int]:
    """Return what changes with a file."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _from_hdf5(path: Path, examined: tuple[int, int, int], name: str) -> Array:
    if _stamp(path) != examined:
        raise ValueError("it changed while it was read")
    with h5py.File(path, "r") as file:
        stored = file[name]
        if not stored.ndim:
            return np.asarray(stored[()])
        is_double = stored.dtype == np.float64 and not name.startswith("metadata/")
        blocks = (stored[rows] for rows in slices(len(stored), max(1, (len(stored) << 24) // max(1, stored.nbytes))))
        return gathered(as_float32(block, name) if is_double else np.asarray(block) for block in blocks)


def _from_parquet(path: Path, name: str) -> Array:
    with open_parquet(path) as file:
        return gathered(column_blocks(file, name, path))


def column_blocks(file: ParquetFile, name: str, path: Path) -> Iterator[Array]:
    """Yield a column of a Parquet file as arrays of some rows, lists as (n, width), nulls as NaN; one at least.

    Raises `UserError`, which names `path`, for lists of unequal lengths.
    """
    first, width = 0, None
    empty = file.schema_arrow.empty_table().select([name]).to_batches()
    for batch in file.iter_batches(mapping.ROWS, columns=[name]) if file.metadata.num_rows else empty:
        batch.validate(full=True)
        column = pl.DataFrame(pl.from_arrow(batch)).to_series()  # Polars reads no files: a damaged one can end it
        if column.dtype == pl.List:
            lengths = column.list.len().fill_null(strategy="forward").fill_null(strategy="backward").to_numpy()
            width = int(lengths[0]) if width is None and len(lengths) else width or 0
            if (lengths != width).any():
                row = int((lengths != width).argmax())
                raise UserError(
                    f"{path}: the lists of {name} are of unequal lengths: {lengths[row]} numbers in row {first + row}, "
                    f"{width} before: write {width} in every row"
                )
            column = column.list.to_array(width)
        first += len(column)
        yield column.to_numpy()
