"""Tables without some of their units: episodes vanish whole, and what refers to rows or episodes is renumbered."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pmpo_offline.data import columns
from pmpo_offline.runtime.errors import UserError

Kept = NDArray[np.bool_]
"""Whether each unit stays: (episodes,), or (responses,)."""


def check_droppable(episodes: pa.Table | None, unit: str) -> None:
    """Raise `UserError` if dropping units of this kind would cut episodes into pieces."""
    if episodes is not None and unit == "step" and (columns.vector(episodes, "length") != 1).any():
        raise UserError(
            "balance rows: without single labelled steps an episode falls into pieces; label whole episodes "
            "(--label return or success), or take --balance labels"
        )


def without(
    table: pa.Table, episodes: pa.Table | None, candidates: pa.Table | None, kept: Kept
) -> tuple[pa.Table, pa.Table | None, pa.Table | None]:
    """Return the responses, or the transitions, episodes and candidates, of the units that are kept."""
    if episodes is None:
        return _rows(table, kept), None, None
    stays = np.repeat(kept, columns.vector(episodes, "length"))
    table, episodes = renumbered(_rows(table, stays), _rows(episodes, kept))
    if candidates is not None:
        candidates = _rows(candidates, stays[columns.vector(candidates, "row")])
        candidates = columns.replace(candidates, row=(np.cumsum(stays) - 1)[columns.vector(candidates, "row")])
    return table, episodes, candidates


def renumbered(table: pa.Table, episodes: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return transitions and episodes with numbers and starts that follow from the episodes' lengths."""
    length = columns.vector(episodes, "length").astype(np.int64)
    table = columns.replace(table, episode=np.repeat(np.arange(len(length)), length))
    return table, columns.replace(episodes, start=np.cumsum(length) - length)


def _rows(table: pa.Table, kept: Kept) -> pa.Table:
    return table.filter(pa.array(kept)).combine_chunks()
