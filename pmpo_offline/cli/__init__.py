"""The commands: parse, call, render; no logic.

Everything heavy is imported inside a command, so that `--help` and a mistyped option answer at once.
"""

from __future__ import annotations

import signal
import threading

if threading.current_thread() is threading.main_thread():
    # While the commands are imported, Ctrl-C ends the process without a traceback.
    _before = signal.signal(signal.SIGINT, signal.SIG_DFL)

from .main import app, main

if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, _before)

__all__ = ["app", "main"]
