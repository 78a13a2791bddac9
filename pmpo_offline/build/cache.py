"""What every build and import begins with: is the dataset there already, and where is raw experience kept."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from pmpo_offline import data
from pmpo_offline.data import Dataset
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.files import file_lock


class Named(Protocol):
    """What is looked for: an order, or anything else that a dataset is made by."""

    @property
    def id(self) -> str:
        """Its id."""
        ...

    @property
    def digest(self) -> str:
        """A hash of everything that was asked for."""
        ...

    @property
    def remedy(self) -> str:
        """What else to do where another dataset of this id stands."""
        ...


def standing(order: Named, format: data.Format, home: Path) -> Dataset | None:
    """Return the dataset that stands, None where there is none; `UserError` if it is another or of another form."""
    if not data.stands(order.id, home):
        return None
    found = data.load_dataset(order.id, home=home)
    if found.metadata.provenance.hashes.get("recipe") != order.digest:
        raise UserError(f"{order.id} stands in {found.path} but was {order.remedy}")
    stored = "arrow" if any(name.endswith(".arrow") for name in found.metadata.files) else "hdf5"
    if stored != format:
        raise UserError(f"{order.id} stands as {stored} in {found.path}: add --overwrite to store it as {format}")
    return found


@contextmanager
def kept(home: Path, name: str) -> Iterator[Path]:
    """Hold the folder of some raw experience alone; `PmpoOfflineError` where the disk refuses what is written there."""
    try:
        folder = home / ".raw" / name
        folder.mkdir(parents=True, exist_ok=True)
        with file_lock(folder):
            yield folder
    except OSError as error:
        raise PmpoOfflineError(
            f"cannot write in {home}: {error.strerror or error}; choose another --home or free space"
        ) from None


def versions(*names: str) -> dict[str, str]:
    """Return the installed versions of these packages, for the provenance."""
    return {name: importlib.metadata.version(name) for name in names}
