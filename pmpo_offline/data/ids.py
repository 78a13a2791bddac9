"""Where datasets live: the home folder, the ids in it, and the path that an id or a path stands for."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pmpo_offline.runtime.errors import UserError, unknown

METADATA_FILE = "dataset.json"

# Minari's rule (a namespace of two characters or more, a version at the end), with the namespace made compulsory and
# every part made to begin with a letter or digit, so that no id is hidden, absolute or climbs out of its home.
_ID = re.compile(r"(?=..+/)(?:[A-Za-z0-9][-\w]*/)+[A-Za-z0-9][-\w]*-v\d+", re.ASCII)


def home() -> Path:
    """Return `$PMPO_OFFLINE_DATASETS`, or `~/.cache/pmpo_offline/datasets` where it is not set."""
    return Path(os.environ.get("PMPO_OFFLINE_DATASETS") or "~/.cache/pmpo_offline/datasets").expanduser()


def _root(given: Path | None) -> Path:
    return home() if given is None else given


def dataset_path(dataset_id: str, home: Path | None = None) -> Path:
    """Return the directory of an id, whether or not it stands; raises `UserError` for an id that is none or escapes."""
    root = _root(home)
    if not _ID.fullmatch(dataset_id):
        raise UserError(f"{dataset_id!r} is no dataset id: write namespace/name-vN, as in rgb-stacking/proxy-v0")
    path = root / dataset_id
    if not path.resolve().is_relative_to(root.resolve()):
        raise UserError(
            f"dataset {dataset_id!r} is a link that leads out of {root}: give the path it points to instead"
        )
    return path


def resolve(id_or_path: str | Path, home: Path | None = None) -> Path:
    """Return the directory of a standing dataset, given its id or its path; an id wins over a path of the same name.

    Raises `UserError` with the near misses among the standing ids.
    """
    name = str(id_or_path)
    if _ID.fullmatch(name) and stands(name, home):
        return dataset_path(name, home)
    path = Path(id_or_path).expanduser()
    if (path / METADATA_FILE).is_file():
        return path
    if path.is_dir():
        raise UserError(f"{name} holds no {METADATA_FILE}: give the folder of a dataset, or an id")
    raise unknown("dataset", name, standing(home))


def stands(dataset_id: str, home: Path | None = None) -> bool:
    """Return whether there is a dataset of this id; raises `UserError` for an id that is none or escapes."""
    return (dataset_path(dataset_id, home) / METADATA_FILE).is_file()


def standing(home: Path | None = None) -> list[str]:
    """Return the ids of the datasets that stand in a home, sorted."""
    root = _root(home)
    found = []
    for folder, subfolders, files in os.walk(root):
        if METADATA_FILE in files:
            found.append(Path(folder).relative_to(root).as_posix())
            subfolders.clear()
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
    return sorted(found)
