"""Datasets as people give them: themselves, ids, or paths."""

from __future__ import annotations

from pathlib import Path

from pmpo_offline.data import Dataset, load_dataset
from pmpo_offline.declarations import catalog
from pmpo_offline.runtime.errors import UserError


def opened(dataset: Dataset | str | Path, home: str | Path | None = None) -> Dataset:
    """Return a dataset, given itself, or its id or path: then every file is compared with its hash.

    Raises `UserError` if there is none, or it is declared and not built.
    """
    if isinstance(dataset, Dataset):
        return dataset
    if not isinstance(dataset, str | Path):
        kind = type(dataset).__name__
        raise UserError(f"expected a dataset, its id or its path, not {kind}: import_dataset reads files and folders")
    try:
        return load_dataset(dataset, verify=True, home=home)
    except UserError as error:
        if not catalog.is_declared(str(dataset)):
            raise
        raise UserError(f"dataset {dataset} is declared but not built: build_dataset({str(dataset)!r})") from error
