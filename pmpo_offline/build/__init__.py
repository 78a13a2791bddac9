"""From a source to a stored dataset: raw experience or responses, scores, labels, balance, metadata, files."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pmpo_offline.build.collect import DEFAULT, build_dataset
    from pmpo_offline.build.read import import_dataset
    from pmpo_offline.build.read_text import import_text
    from pmpo_offline.build.text_options import TextOptions

__all__ = ["DEFAULT", "TextOptions", "build_dataset", "import_dataset", "import_text"]

_HOMES = {
    "DEFAULT": "collect",
    "TextOptions": "text_options",
    "build_dataset": "collect",
    "import_dataset": "read",
    "import_text": "read_text",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
