"""A build whose longer chunks are recorded only once a file exists: who is killed meanwhile is no race."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pmpo_offline.cli import main
from pmpo_offline.data import Experience
from pmpo_offline.tasks import simulated
from pmpo_offline.tasks.simulated import Record

CHUNK = 4
"""Episodes of a chunk, so that five are two chunks."""
GATE = "GATE"
"""The environment variable with the path of the file."""

play = simulated._play


def play_behind_gate(record: Record, seeds: Sequence[int], versions: dict[str, str]) -> Experience:
    """Record one episode at once, several when the file exists."""
    while len(seeds) > 1 and not Path(os.environ[GATE]).exists():
        time.sleep(0.01)
    return play(record, seeds, versions)


def build() -> None:
    """Run the command line with small chunks behind the gate."""
    simulated.collect = partial(simulated.collect, chunk=CHUNK)  # type: ignore[assignment]
    simulated._play = play_behind_gate
    main()
