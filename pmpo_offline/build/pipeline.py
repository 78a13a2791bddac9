"""One pipeline for every dataset."""

from __future__ import annotations

from pathlib import Path

from pmpo_offline import data
from pmpo_offline.declarations import catalog
from pmpo_offline.runtime.errors import UserError, unknown


def is_built(name: str, home: Path | None = None) -> bool:
    """Return whether a dataset, given its id or its path, is built (True) or only declared (False).

    Raises `UserError`, with the near misses among both, if it is neither.
    """
    try:
        data.resolve(name, home)
    except UserError:
        if catalog.is_declared(name):
            return False
        if Path(name).is_dir():
            raise
        raise unknown("dataset", name, {*data.standing(home), *(each.id for each in catalog.datasets())}) from None
    return True
