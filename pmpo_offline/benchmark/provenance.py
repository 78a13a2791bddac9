"""How results were made: the commands of a results folder.

```
<output>/commands.txt     a `pmpo-offline bench` a line, each once, in the order of their first run
```
The hardware is recorded in every file of raw scores (`results.Results`), since several machines may share a folder.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pmpo_offline.runtime.files import atomic_file, file_lock

FILE = "commands.txt"


def command(suite: str, changes: Mapping[str, Any], sweep: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """Return the command line of a benchmark: the suite, its changed options, and the values to try."""
    words = ["pmpo-offline", "bench", suite]
    for name, value in changes.items():
        values = [value] if isinstance(value, str | int | float) else value
        words += [f"--{name}", ",".join(map(str, values))]
    for algorithm, settings in (sweep or {}).items():
        for setting, values in settings.items():
            words += ["--set", f"{algorithm}.{setting}={','.join(map(str, values))}"]
    return shlex.join(words)


def record(output: Path, line: str) -> None:
    """Add a command to those of a results folder, unless it is among them."""
    output.mkdir(parents=True, exist_ok=True)
    with file_lock(output):
        known = commands(output)
        if line not in known:
            with atomic_file(output / FILE) as scratch:
                scratch.write_text("".join(f"{each}\n" for each in [*known, line]), encoding="utf-8")


def commands(output: Path) -> list[str]:
    """Return the commands that wrote into a results folder; none of folders from before they were recorded."""
    path = output / FILE
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
