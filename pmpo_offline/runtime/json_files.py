"""JSON files: written whole or absent, with null for the `Infinity` and `NaN` that other programs refuse."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pmpo_offline.runtime.errors import PmpoOfflineError
from pmpo_offline.runtime.files import atomic_file


def finite(value: Any) -> Any:
    """Return a JSON value with None for every infinite number and NaN, however deep."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, content: Any, indent: int = 1) -> None:
    """Write a JSON file, whole or absent; raises `OSError` if the disk refuses."""
    with atomic_file(path) as scratch:
        scratch.write_text(json.dumps(finite(content), indent=indent, allow_nan=False), encoding="utf-8")


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON object; `PmpoOfflineError` with `remedy` at its end if there is none or the file is damaged."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise PmpoOfflineError(f"{path} is damaged ({error}): {remedy}") from None
    if not isinstance(content, dict):
        raise PmpoOfflineError(f"{path} is damaged (it holds no JSON object): {remedy}")
    return content
