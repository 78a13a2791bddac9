"""Datasets from unlabelled tables: labels, metadata and files, as a build makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from pmpo_offline import data

Tables = dict[str, pa.Table]


def labelled(
    rows: pa.Table,
    episodes: pa.Table | None,
    label: str,
    *,
    candidates: pa.Table | None = None,
    noise: float = 0.0,
    imbalance: float | None = None,
    seed: int = 0,
    **about: Any,
) -> tuple[data.Metadata, Tables]:
    """Return the metadata and the labelled tables of transitions, or of responses if `episodes` is None.

    `about` holds fields of the metadata over defaults.
    """
    rule = data.LabelRule.parse(label)
    done = data.label_tables(rows, episodes, data.Labelling(rule, imbalance, noise, seed), candidates)
    fields = {"id": "test/small-v0", "task": "test", "noise": noise, "seed": seed, **about}
    metadata = data.Metadata(score=data.ScoreRule(name=rule.score), label=rule, **fields, **done.described)
    return metadata, done.tables


def saved(directory: Path, rows: pa.Table, episodes: pa.Table | None, label: str, **about: Any) -> data.Dataset:
    """Write what `labelled` returns, and open it."""
    data.write(directory, *labelled(rows, episodes, label, **about))
    return data.open_dataset(directory)
