"""Named arrays, one row a step, from an .npz, .hdf5 or .parquet file.

Nothing is unpickled, and an array is read when it is used.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow.parquet import ParquetFile

from pmpo_offline.data import mapping
from pmpo_offline.data.exchange.forms.classes import classes_beside, classes_of, named
from pmpo_offline.data.exchange.readers.arrays import (
    Array,
    Kinds,
    as_float32,
    as_kind,
    is_nan,
    side_by_side,
    solved_rows,
    without,
)
from pmpo_offline.data.mapping import gathered, slices
from pmpo_offline.data.opening import open_hdf5, open_parquet, refuse_pointer
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.arrays import array_blocks, array_names
from pmpo_offline.runtime.errors import UserError, reason_of
from pmpo_offline.runtime.files import from_json

LABELS = ("label", "labels", "infos/label", "infos/labels", "adv_ind")
"""Columns that are labels wherever they are: ours, and RECAP's indicator of the advantage (positive, negative)."""
EPISODES = ("episode", "episode_id", "episode_index", "traj_id", "trajectory_id", "trajectory_index", "trajectory")
"""Columns that number or name episodes."""
SOLVED = ("success", "is_success", "task_success", "goal_achieved", "solved")
SUCCESS = (*(f"infos/{name}" for name in SOLVED), *SOLVED)
"""What an array of the steps at which the task was solved may be called, or of the episodes in which it was."""


@dataclass(frozen=True)
class Flat:
    """The arrays of one file; slashes in names are groups of an HDF5 file, whose arrays are joined if it is read."""

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
    classes: Mapping[str, Any] | None = None
    """Names of the classes in columns of a Parquet file (Hugging Face's `ClassLabel`); None of files of other kinds."""

    def parts(self, name: str) -> list[str]:
        """Return the array of this name, or all those in the group, in the order of their names; empty if none."""
        return [name] if name in self.names else sorted(part for part in self.names if part.startswith(f"{name}/"))

    def need(self, *names: str, advice: str = "") -> None:
        """Raise `UserError` that names every array which is missing, and ends with the advice."""
        self._refuse_partial(names)
        if missing := [name for name in names if not self.parts(name)]:
            held = ", ".join(sorted(self.names)[:12]) or "nothing"
            raise UserError(f"{self.path} lacks {', '.join(missing)}: it holds {held}{advice}")

    def _refuse_partial(self, names: Iterable[str]) -> None:
        if found := [name for name in names if name in self.partial]:
            raise UserError(f"{self.path}: only some of the files hold {found[0]}: write it in all of them, or in none")

    def __getitem__(self, name: str) -> Array:
        """Return one array, or those of a group as one matrix; `UserError` where the file is damaged."""
        self.need(name)
        names = self.parts(name)
        self.used.update(names)
        with readable(self.path):
            found = [self.load(part) for part in names]
        if name in self.names:
            return found[0]
        if odd := [part for part, values in zip(names, found, strict=True) if values.ndim not in (1, 2)]:
            raise UserError(f"{self.path}: {odd[0]} is no row of numbers a step, and images are not supported")
        if len({len(values) for values in found}) > 1:
            raise UserError(f"{self.path}: {name} has parts of different lengths: every array needs one row a step")
        return side_by_side(found)

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
        kinds = {**kinds, **{name: kind for name, kind in optional.items() if self.parts(name)}}
        found: dict[str, Array] = {}
        first, rows = "the marks", -1 if unused is None else len(unused)
        for done, (name, kind) in enumerate(kinds.items()):
            progress.report("read arrays", done, len(kinds))
            values = self[name]
            if rows < 0 and values.ndim:
                first, rows = name, len(values)
            if values.shape[:1] != (rows,):
                count = len(np.atleast_1d(values))
                raise UserError(
                    f"{self.path}: {name} has {count} rows and {first} {rows}: every array needs one row a step"
                )
            if unused is not None and values.dtype.kind in "fiub":
                values = without(values, unused & is_nan(values) if kind == "flags" else unused)
                if (
                    kind == "actions" and values.ndim == 2 and values.dtype.kind in "iub"
                ):  # of a row of 0, none is chosen
                    values = np.where(unused[:, None], values[int(unused.argmin())], values)
            found[name] = as_kind(kind, values, f"{self.path}: {name}")
        progress.report("read arrays", len(kinds), len(kinds))
        if not rows:
            raise UserError(f"{self.path}: {first} holds no rows")
        return found

    def feedback(self, column: str | None) -> tuple[str, Array] | None:
        """Return the name and the values of a column of feedback: the one that is named, else one of labels, if any.

        Raises `UserError` where two columns of labels differ and none is named.
        """
        self._refuse_partial([column] if column else LABELS)
        found = agreed({name: self[name] for name in feedback_columns(column, self.names)}, self.path)
        if found is None or self.classes is None:
            return found
        described, _ = classes_beside(self.path if self.path.is_dir() else self.path.parent)
        return found[0], named_classes(found[1], {**described, **self.classes}.get(found[0]))

    def solved(self, last: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """Return the rows (M,) at which the task was solved, given the last row (E,) of each episode.

        NaN says nothing; None if no array says anything. Raises `UserError` where two arrays differ, and where one
        says nothing of some episodes.
        """
        self._refuse_partial(SUCCESS)
        found: dict[str, Array] = {}
        for name in filter(self.names.__contains__, SUCCESS):
            where = f"{self.path}: {name}"
            if self.classes and name in self.classes:
                raise UserError(f"{where} holds classes, {', '.join(self.classes[name])}: write true and false")
            if (solved := solved_rows(self[name], last, where)) is None:
                continue
            found[name] = solved
            first = next(iter(found))
            if (found[name] != found[first]).any():
                raise UserError(f"{self.path}: {first} and {name} contradict each other: leave one of them out")
        return next(iter(found.values()), None)


def feedback_columns(column: str | None, held: Collection[str]) -> list[str]:
    """Return the columns of feedback among those that a source holds: the one that is named, else those of labels."""
    return [column] if column else [name for name in LABELS if name in held]


def agreed(columns: Mapping[str, Array], where: object) -> tuple[str, Array] | None:
    """Return the first of these columns of feedback, None if there are none; `UserError` unless all are equal."""
    first = next(iter(columns), None)
    if first is None:
        return None
    for name, values in columns.items():
        are_floats = values.dtype.kind == columns[first].dtype.kind == "f"  # NaN is unlabelled
        if not np.array_equal(values, columns[first], equal_nan=are_floats):
            raise UserError(f"{where}: {first} and {name} differ: say which one counts, with --score {first}")
    return first, columns[first]


def named_classes(values: Array, names: Sequence[str] | None) -> Array:
    """Return the names of classes in place of their numbers, None for a negative one; other values as they are."""
    if names is None or values.dtype.kind not in "iu":
        return values
    return np.array([named({"": int(value)}, {"": names})[""] for value in values.tolist()], object)


@contextmanager
def opened(flat: Flat) -> Iterator[h5py.File]:
    """Open an HDF5 file that is read in many parts; `UserError` where it is damaged, or changed since."""
    with readable(flat.path), _unchanged(flat.path, flat.examined) as file:
        yield file


@contextmanager
def _unchanged(path: Path, examined: tuple[int, int, int] | None) -> Iterator[h5py.File]:
    if _stamp(path) != examined:
        raise ValueError("it changed while it was read")
    with h5py.File(path, "r") as file:
        yield file


def open_flat(path: Path) -> Flat | None:
    """Open a file of named arrays, None for a table without rows; `UserError` for a file that is empty or damaged."""
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
                if not table.metadata.num_rows:
                    return None
                names_of, classes = table.schema_arrow.names, classes_in(table)
                return Flat(path, _printable(names_of), partial(_from_parquet, path), classes=classes)
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
    return Flat(folder, names, lambda name: gathered(_alike(shards, name)), partial=partial, classes=shards[0].classes)


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
        other = f" or no {path.suffix} file" if path.suffix else ""
        raise UserError(f"{path} cannot be read, it is damaged{other}: {reason_of(error)}; get it again") from None


def _stamp(path: Path) -> tuple[int, int, int]:
    """Return what changes with a file."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _from_hdf5(path: Path, examined: tuple[int, int, int], name: str) -> Array:
    with _unchanged(path, examined) as file:
        stored = file[name]
        if not stored.ndim:
            return np.asarray(stored[()])
        is_double = stored.dtype == np.float64 and not name.startswith("metadata/")
        blocks = (stored[rows] for rows in slices(len(stored), max(1, (len(stored) << 24) // max(1, stored.nbytes))))
        return gathered(as_float32(block, name) if is_double else np.asarray(block) for block in blocks)


def _from_parquet(path: Path, name: str) -> Array:
    with open_parquet(path) as file:
        return gathered(column_blocks(file, name, path))


def classes_in(file: ParquetFile) -> dict[str, Any]:
    """Return the names of the classes of the columns that Hugging Face's features, in the file's schema, describe."""
    said = from_json((file.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
    return classes_of(said.get("info", {}).get("features", {}))


def column_blocks(file: ParquetFile, name: str, path: Path) -> Iterator[Array]:
    """Yield a column of a Parquet file that has rows as arrays of some of them, lists as (n, width), nulls as NaN.

    Raises `UserError`, which names `path`, for lists of unequal lengths or of lists.
    """
    first, width = 0, None
    for batch in file.iter_batches(mapping.ROWS, columns=[name]):
        batch.validate(full=True)
        column = pl.DataFrame(pl.from_arrow(batch)).to_series()  # Polars reads no files: a damaged one can end it
        if column.dtype == pl.Boolean and column.null_count():
            column = column.cast(pl.Float32)
        if isinstance(column.dtype, pl.Decimal):
            column = column.cast(pl.Float64)
        if isinstance(getattr(column.dtype, "inner", None), (pl.List, pl.Array)):
            raise UserError(f"{path}: {name} holds lists of lists: write a row of numbers a step (images are not read)")
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
