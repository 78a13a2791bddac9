"""Functions whose processes are killed, for the executors that call them."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def square(folder: Path, number: int, lives: int) -> int:
    """Return number², but for the first `lives` calls with this number, which kill their process; calls are counted."""
    calls = folder / str(number)
    with calls.open("a", encoding="utf-8") as file:
        file.write(".")
    if len(calls.read_text(encoding="utf-8")) <= lives:
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2
