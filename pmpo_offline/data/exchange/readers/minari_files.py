"""Minari data sets on disk: found by id, locally or on its hub, and their episodes in either form of storage."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from pmpo_offline.data.exchange.readers import minari_folder
from pmpo_offline.data.opening import open_hdf5
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import UserError, reason_of
from pmpo_offline.runtime.files import from_json

Array = NDArray[Any]
Keys = tuple[str | int, ...]
METADATA = "metadata.json"
_ID = re.compile(r"(?:\w[-\w]*/)*\w[-\w]*-v\d+", re.ASCII)


def minari_home() -> Path:
    """Return where Minari keeps data sets: `$MINARI_DATASETS_PATH`, or `~/.minari/datasets`."""
    return Path(os.environ.get("MINARI_DATASETS_PATH") or "~/.minari/datasets").expanduser()


def find(dataset_id: str) -> Path:
    """Return the folder with the metadata of a Minari data set, downloading it if it is not there.

    Raises `UserError` for a malformed id, and for one that is neither here nor can be had from the hub.
    """
    if not _ID.fullmatch(dataset_id):
        raise UserError(
            f"minari:{dataset_id} is no Minari id: write minari:namespace/name-vN, as in minari:mujoco/hopper/medium-v0"
        )
    directory = minari_home() / dataset_id
    if not (folder := minari_folder(directory)):
        progress.report("ask Minari's hub", 0, 1)
        _download(dataset_id)
        progress.report("ask Minari's hub", 1, 1)
        folder = minari_folder(directory)
    if not folder:
        raise UserError(f"minari:{dataset_id} was downloaded and {directory} holds no data/metadata.json: get it again")
    return folder


def _download(dataset_id: str) -> None:
    from minari import download_dataset

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # the hub's client logs each attempt; the error below names the last one's end
    try:
        if "MINARI_REMOTE" not in os.environ:
            from huggingface_hub import constants, get_session

            get_session().head(constants.ENDPOINT)  # fail at once: a download would retry for half a minute
        download_dataset(dataset_id)
    except ImportError as error:
        raise UserError(f"minari:{dataset_id} is not in {minari_home()}, and the hub's client lacks: {error}") from None
    except ValueError as error:  # Minari's own words: no such data set, or of another Minari's
        raise UserError(f"minari:{dataset_id} is not in {minari_home()}: {error}") from None
    except Exception as error:  # what the hub's client of today raises: no network, no answer, no access
        raise UserError(
            f"minari:{dataset_id} is not in {minari_home()} and the hub cannot be reached ({reason_of(error)}): check "
            f"the id, or run minari download {dataset_id} where there is a network and set MINARI_DATASETS_PATH to its "
            "folder"
        ) from None
    finally:
        logging.disable(before)


@dataclass(frozen=True)
class Episode:
    """One stored episode; arrays are read when they are used; `KeyError` if there is none of this name."""

    where: str
    array: Callable[[Keys], Array]
    """("observations", *path in the space), ("actions", …), ("rewards",), ("infos", "success") …"""
    attribute: Callable[[str], Any]
    """An attribute of the episode, None if it has none of this name."""
    infos: Callable[[], list[str]]
    """Return the names of its infos, with slashes where they are nested."""
    attributes: Callable[[], set[str]]
    """Return the names of its attributes."""


@contextmanager
def open_storage(folder: Path, form: str) -> Iterator[Callable[[int], Episode]]:
    """Yield what returns the episode of an index; `UserError` for files that are damaged or of an unknown form."""
    try:
        if form == "hdf5":
            with open_hdf5(folder / "main_data.hdf5") as file:
                yield lambda index: _from_hdf5(file, index)
        elif form in ("arrow", "parquet"):
            yield lambda index: _from_arrow(folder, form, index)
        else:
            raise UserError(f"{folder}: data_format {form!r} is unknown here: hdf5, arrow and parquet can be imported")
    except (OSError, RuntimeError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{folder} cannot be read, it is damaged: {reason_of(error)}; get the data set again") from None


def _from_hdf5(file: h5py.File, index: int) -> Episode:
    name = f"episode_{index}"
    if name not in file:
        raise UserError(f"{file.filename} lacks {name}: it is incomplete, get the data set again")
    group = h5py.h5g.open(file.id, name.encode())

    def array(path: Keys) -> Array:
        key = "/".join(f"_index_{part}" if isinstance(part, int) else part for part in path)
        # h5py's low level is several times as fast, and with many episodes that is seconds.
        stored = h5py.h5d.open(group, key.encode())
        values = np.empty(stored.shape, stored.dtype)
        stored.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
        return values

    def attribute(key: str) -> Any:
        return h5py.Group(group).attrs[key] if h5py.h5a.exists(group, key.encode()) else None

    def infos() -> list[str]:
        found: list[str] = []
        if "infos" in (here := h5py.Group(group)):
            here["infos"].visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
        return found

    return Episode(name, array, attribute, infos, lambda: set(h5py.Group(group).attrs))


def _from_arrow(folder: Path, form: str, index: int) -> Episode:
    place = folder / str(index)
    if not place.is_dir():
        raise UserError(f"{folder} lacks the episode {index}: it is incomplete, get the data set again")
    table = ds.dataset(place, format=form, ignore_prefixes=["_", ".", METADATA]).to_table().combine_chunks()
    rows = table.num_rows

    def array(path: Keys) -> Array:
        column = table.column(str(path[0])).combine_chunks()
        for part in path[1:]:
            column = column.field(str(part))
        if pa.types.is_fixed_size_list(column.type):
            values: Array = column.flatten().to_numpy(zero_copy_only=False).reshape(rows, -1)
        else:
            values = column.to_numpy(zero_copy_only=False)
        # But for observations, the last of T+1 rows is padding.
        return values if path[0] in ("observations", "infos") else values[:-1]

    def infos() -> list[str]:
        inside = {name: column.type for name, column in zip(table.column_names, table.columns, strict=True)}
        return list(_leaves(inside["infos"])) if "infos" in inside else []

    said = place / METADATA
    attributes = from_json(said.read_bytes()) if said.is_file() else {}
    return Episode(f"episode {index}", array, attributes.get, infos, lambda: set(attributes))


def _leaves(kind: pa.DataType, name: str = "") -> Iterator[str]:
    """Yield the names of the fields of a struct that are none themselves."""
    if not pa.types.is_struct(kind):
        yield name
        return
    for field in kind:
        yield from _leaves(field.type, f"{name}/{field.name}" if name else field.name)
