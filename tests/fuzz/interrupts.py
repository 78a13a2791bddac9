"""Interrupt commands (Ctrl-C) at random moments from their very start; each must end at once, without a traceback.

    python tests/fuzz/interrupts.py [--interrupts 60] [--seed 0] [--within 1.5] [--module] list

What comes after the options is the command; `--module` starts it by `python -m pmpo_offline`, else it is started as the
installed script is. The interpreter's own start, before it imports anything of ours, is counted apart: nothing that a
package does can change how it takes an interrupt.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = "import sys\nfrom pmpo_offline.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
SECONDS = 60
"""For the end after an interrupt, on a busy machine."""


def main() -> int:
    """Interrupt the command as often as asked; return 1 if it ended in a traceback or too late."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--interrupts", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--within", type=float, default=1.5, help="seconds after the start")
    parser.add_argument("--module", action="store_true")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    rng, ends, failures = Random(options.seed), Counter[str](), []
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "pmpo-offline")
        script.write_text(SCRIPT)
        program = [sys.executable, *(["-m", "pmpo_offline"] if options.module else [str(script)])]
        for _ in range(options.interrupts):
            seconds = rng.random() * options.within
            how, said = interrupted([*program, *options.command], seconds, Path(folder))
            ends[how] += 1
            failures += [f"after {seconds:.3f} s: {said}"] if how == "failure" else []
    print(dict(ends))
    print("\n".join(failures))
    return min(1, len(failures))


def interrupted(command: list[str], seconds: float, folder: Path) -> tuple[str, str]:
    """Return how a command ended that was interrupted after so many seconds, and what it wrote to stderr."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    try:
        _, said = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return "failure", "no end"
    if "Traceback" in said or "Exception ignored" in said:
        return ("failure" if "/pmpo_offline/" in said else "start of the interpreter"), said[-600:]
    ends = {0: "finished", 1: "finished", 2: "finished", 130: "interrupted", -signal.SIGINT: "ended while importing"}
    return ends.get(process.returncode, "failure"), said[-600:]


if __name__ == "__main__":
    sys.exit(main())
