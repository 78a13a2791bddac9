"""Names that follow from settings: the id of a dataset that differs from its declaration, and the hash of anything."""

from __future__ import annotations

from typing import Any

from pmpo_offline.data import LabelRule
from pmpo_offline.runtime.hashing import hash_json


def variant(id: str, changed: dict[str, Any]) -> str:
    """Return the id that a dataset gets with these settings changed: readable for one change, else with their hash."""
    if not changed:
        return id
    base, _, version = id.rpartition("-")
    readable = [_readable(*item) for item in changed.items()]
    if len(readable) == 1 and readable[0]:
        return f"{base}-{readable[0]}-{version}"
    return f"{base}-{digest({name: str(value) for name, value in changed.items()})[:8]}-{version}"


def _readable(name: str, value: Any) -> str | None:
    """Return what an id says of one changed setting, None where that would not be readable."""
    if name == "label":
        usual = value == LabelRule.parse(value.score)
        return str(value.score).replace("_", "-") if usual else None
    if name in ("imbalance", "noise"):
        if value is None:
            return "collected"
        percent = round(100 * value, 6)
        prefix = "accept" if name == "imbalance" else "noise"
        return f"{prefix}{percent:.0f}" if percent == int(percent) else None
    return f"{name}{value}"


def digest(content: Any) -> str:
    """Return the hash of something that JSON can say."""
    return hash_json(content)
