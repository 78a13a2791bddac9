"""Yes and no as people write them: labels and thumbs become +1 (accept), −1 (reject) and NaN (unlabelled)."""

from __future__ import annotations

import math
from typing import Any

from pmpo_offline.data.exchange.forms.response import Reading, Row

_LABELS = {"true": 1.0, "1": 1.0, "false": -1.0, "0": -1.0}
_THUMBS = {"up": 1.0, "thumbs_up": 1.0, "👍": 1.0, "down": -1.0, "thumbs_down": -1.0, "👎": -1.0, "-1": -1.0}
_SAID = {1.0: "accept", -1.0: "reject"}


def label(row: Row, name: str, reading: Reading) -> float:
    """Return a label: true and 1 accept, false and 0 reject, null is unlabelled; `UserError` for anything else."""
    return _meaning(row, name, reading, _LABELS, "true, false, 1, 0 or null")


def thumb(row: Row, name: str, reading: Reading) -> float:
    """Return a thumb: as `label`, and up, +1 accept, down, −1 reject; `UserError` for anything else.

    Where −1 occurs, 0 could be a reject or no opinion, and a column that holds both is refused.
    """
    value = _meaning(row, name, reading, _LABELS | _THUMBS, "true, false, 1, 0, -1, up, down or null")
    if {"0", "-1"} <= reading.meant.keys():
        raise row.error(f"{name} holds both 0 and -1: write null where there was no opinion")
    return value


def _meaning(row: Row, name: str, reading: Reading, words: dict[str, float], known: str) -> float:
    value = row.values.get(name)
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        reading.meant["null"] = "unlabelled"
        return math.nan
    word = _word(value)
    if word not in words:
        shown = " ".join(str(value).split())[:20]
        raise row.error(f"{name} is {shown!r}: write {known}, or name a column of scores with --score")
    reading.meant[word] = _SAID[words[word]]
    return words[word]


def _word(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    word = str(value).strip().lower().removeprefix("+")
    return {"1.0": "1", "0.0": "0", "-1.0": "-1"}.get(word, word)
