"""The transitions of a dataset block by block, each row with the observation that follows it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pmpo_offline.data import columns
from pmpo_offline.data.dataset import Dataset

BLOCK = 65_536
"""Rows of a block: a few megabytes, whatever the dataset's size."""


def blocks(dataset: Dataset, first: int = 0, end: int | None = None) -> Iterator[tuple[slice, pa.Table]]:
    """Yield (rows, table) of rows first … end − 1 of transitions, with their `next_observation` as a last column."""
    end = len(dataset) if end is None else end
    for start in range(first, end, BLOCK):
        rows = slice(start, min(start + BLOCK, end))
        following = columns.list_array(dataset.next_observation(np.arange(rows.start, rows.stop)))
        table = dataset.table.slice(start, rows.stop - start)
        yield rows, table.append_column("next_observation", following).combine_chunks()
