"""The commands: parse, call, render; no logic.

Everything heavy is imported inside a command, so that `--help` and a mistyped option answer at once.
"""

from __future__ import annotations

from .main import app, main

__all__ = ["app", "main"]
