"""What the source of a dataset does not say: which episodes succeeded, or rewards. Such columns hold false and 0."""

from __future__ import annotations

from collections.abc import Iterable

from pmpo_offline.data.schema import Metadata
from pmpo_offline.runtime.errors import UserError

_COLUMNS = {"success": ("success",), "rewards": ("reward", "return", "return_to_go")}
"""Columns and scores by the setting of an import that is false where its source does not tell them."""


def unknown_columns(metadata: Metadata) -> frozenset[str]:
    """Return the columns, and the scores of labels, of which nothing is known."""
    settings = metadata.provenance.settings
    return frozenset(name for known, names in _COLUMNS.items() if settings.get(known) is False for name in names)


def knows_success(metadata: Metadata) -> bool:
    """Return whether the column `success` says anything; an import of a source that does not tell has false in all."""
    return "success" not in unknown_columns(metadata)


def check_known(metadata: Metadata, names: Iterable[str], use: str) -> None:
    """Raise `UserError`, which begins with `use`, if one of these columns or scores is unknown."""
    if said := sorted(unknown_columns(metadata).intersection(names)):
        what = "does not say which episodes succeeded" if said[0] == "success" else "holds no rewards"
        raise UserError(f"{use}: the source of {metadata.id} {what}: {said[0]} is unknown")
