"""A section of the report: the best algorithm of each dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl


def best(raw: pl.DataFrame, rows: Sequence[dict[str, Any]]) -> str:
    """Return a line for each dataset."""
    lines = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        winner = max((row for row in rows if row["dataset"] == dataset), key=lambda row: row["iqm"])
        lines.append(f"- Best on {dataset}: {winner['algo']}, {winner['iqm']:.1f}")
    return "\n".join(lines)
