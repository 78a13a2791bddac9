"""A logger that appends the metrics of a run to a file of JSON lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Lines:
    """Opened once a run, with the first metrics, and closed at its end."""

    def __init__(self, directory: Path, config: Mapping[str, Any]) -> None:
        self._file = (directory / "metrics.jsonl").open("a", encoding="utf-8")
        self._file.write(json.dumps(dict(config)) + "\n")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Append a line."""
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
