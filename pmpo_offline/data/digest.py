"""What a dataset holds, in one hash: by it a run knows what it was trained on, whatever stands under that id later."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pmpo_offline.data.dataset import Dataset

_RESPONSES = ("prompt", "completion", "score", "label", "prompt_id", "split")


def content_digest(dataset: Dataset) -> str:
    """Return a sha256 over all rows, those that are held out among them.

    Of responses the columns are hashed, so that either format is the same, and how they are read (`ends`, `tokens`); of
    transitions and candidates the stored files, so that labels given in memory change nothing.
    """
    meta = dataset.metadata
    parts: list[Any] = sorted((name, info.sha256) for name, info in meta.files.items())
    if meta.kind == "responses":
        told = meta.provenance.settings
        columns = (dataset.table.column(name).to_pylist() for name in _RESPONSES)
        parts = [[told.get("ends", True), told.get("tokens")], *columns]
    total = hashlib.sha256()
    for part in parts:
        total.update(json.dumps(part).encode())
    return total.hexdigest()
