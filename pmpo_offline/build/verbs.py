"""Datasets made of stored ones, and stored under ids of their own: filter, split, combine, relabel; rename and delete.

What is made has its parents' ids and hashes and the operation in its provenance, and is found again by them: the same
operation on the same datasets opens what is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pmpo_offline import data
from pmpo_offline.build.options import Place, Target
from pmpo_offline.build.pipeline import store, variant
from pmpo_offline.data import Dataset, LabelRule
from pmpo_offline.data.derived import combined, with_history, without_settings
from pmpo_offline.data.storage import HISTORY
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.files import claim, remove_directory
from pmpo_offline.runtime.hashing import hash_json

HERE = Place()
"""The default home, where nothing is replaced."""


def filter_dataset(name: str, to: str, where: str, place: Place = HERE) -> Dataset:
    """Store the episodes (or responses) that match an expression as the dataset `to`; see `data.derived.filtered`."""
    _check_free(to, [name], place)
    return _stored(_opened(name, place).filter(where), to, place)


def split_dataset(name: str, shares: Mapping[str, float], seed: int = 0, place: Place = HERE) -> dict[str, Dataset]:
    """Store random parts as datasets named after them, `ns/name-PART-vN`; all of them or none.

    Errors are those of `data.derived.split`, and `UserError` for a part whose dataset exists and is another one.
    """
    found = _opened(name, place)
    base, _, version = found.metadata.id.rpartition("-")
    ids = {part: f"{base}-{part}-{version}" for part in shares}
    for to in ids.values():
        _check_free(to, [name], place)
    parts = found.split(shares, seed)
    # The same split in another process is waited for: what it stored, or has begun to use, is never removed here.
    with claim(data.dataset_path(next(iter(ids.values())), place.home)):
        for part, made in parts.items():
            _existing(made, ids[part], place)  # another dataset is refused before anything is written
        new = [to for to in ids.values() if not data.is_stored(to, place.home)]
        try:
            return {part: _stored(made, ids[part], place) for part, made in parts.items()}
        except BaseException:  # Ctrl-C too
            for to in filter(partial(data.is_stored, home=place.home), new):
                with suppress(OSError):
                    remove_directory(data.dataset_path(to, place.home))
            raise


def combine_datasets(names: Sequence[str], to: str, place: Place = HERE) -> Dataset:
    """Store several datasets of one task as the dataset `to`; see `data.derived.combined`."""
    _check_free(to, names, place)
    return _stored(combined([_opened(name, place) for name in names]), to, place)


def relabel_dataset(name: str, to: str | None, changes: Mapping[str, Any], place: Place = HERE) -> Dataset:
    """Store a dataset with other labels; errors are those of `Dataset.relabelled`.

    Args:
        name: of the dataset.
        to: id of the result; default the dataset's own with a word for what is changed.
        changes: arguments of `Dataset.relabelled`.
        place: where it is stored.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    if not given:
        raise UserError("relabel: say what changes: --label, --imbalance, --balance, --noise or --seed")
    found = _opened(name, place)
    if "label" in given:
        given["label"] = LabelRule.parse(str(given["label"]))
    made = found.relabelled(**given)
    named = {key: None if value == "collected" else value for key, value in given.items()}
    to = to or variant(found.metadata.id, named)
    _check_free(to, [name], place)
    operation = {"operation": "relabel", **{key: str(value) for key, value in given.items()}}
    metadata = with_history(without_settings(made.metadata, "exported"), operation, [found])
    return _stored(replace(made, metadata=metadata), to, place)


def rename_dataset(name: str, to: str, place: Place = HERE) -> Dataset:
    """Give a dataset another id: it is written under the new one, and then the old one is removed."""
    found = _opened(name, place)
    _check_free(to, [name], place)
    renamed = replace(found, metadata=with_history(found.metadata, {"operation": "rename"}, [found]))
    stored = _stored(renamed, to, place)
    delete_dataset(name, place.home)
    return stored


def delete_dataset(name: str, home: Path | None = None) -> Path:
    """Remove a stored dataset, sound or damaged, and return where it was; `UserError` if there is none."""
    directory = data.resolve(name, home)
    if directory.is_symlink():
        raise UserError(f"{directory} is a link: delete what it points to by its own path")
    try:
        remove_directory(directory)
    except OSError as error:
        raise PmpoOfflineError(f"cannot remove {directory}: {error.strerror or error}; check the permissions") from None
    return directory


def _opened(name: str, place: Place) -> Dataset:
    return data.load_dataset(name, home=place.home, verify=True)


def _check_free(to: str, sources: Sequence[str], place: Place) -> None:
    """Raise `UserError` for a malformed id, and for one of the sources, which would be replaced by its own part."""
    target = data.dataset_path(to, place.home)
    for name in sources:
        if data.resolve(name, place.home).resolve() == target.resolve():
            raise UserError(f"{to} is the dataset itself: choose another id for what is made of it")


def _existing(made: Dataset, to: str, place: Place) -> Dataset | None:
    """Return the stored dataset of this id if the same operation made it; `UserError` if another one is in the way."""
    if place.overwrite or not data.is_stored(to, place.home):
        return None
    found = data.load_dataset(to, home=place.home)
    if found.metadata.provenance.hashes.get("recipe") != _digest(made):
        raise UserError(f"{to} exists in {found.path} and was made otherwise: choose another id, or add --overwrite")
    return found


def _digest(made: Dataset) -> str:
    return hash_json([made.metadata.provenance.settings[HISTORY], made.metadata.task])


def _stored(made: Dataset, to: str, place: Place) -> Dataset:
    """Write a dataset under an id, in the form of its first parent, or open the one that is there."""
    if found := _existing(made, to, place):
        return found
    was = made.metadata.provenance
    provenance = was.model_copy(update={"hashes": {**was.hashes, "recipe": _digest(made)}})
    metadata = made.metadata.model_copy(update={"id": to, "provenance": provenance, "files": {}})
    form: data.Format = "arrow" if any(made.path.glob("*.arrow")) else "hdf5"
    target = Target(**vars(place), format=form)
    return store(metadata, made.tables, target, lambda: _existing(made, to, place))
