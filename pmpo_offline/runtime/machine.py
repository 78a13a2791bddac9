"""The machine: what figures hold for, how its cores are used, and how waiting for it is interrupted."""

from __future__ import annotations

import os
import platform
import signal
from functools import cache
from pathlib import Path

SLEEPING = {"OMP_WAIT_POLICY": "passive"}
"""Environment in which torch is to be imported: its threads sleep while they wait for each other. On a machine that
others use too, two spinning ones took 3 times the processor time and 5 to 8 times as long."""


def interruptible() -> None:
    """Let Ctrl-C end what this thread is about to wait for.

    Importing polars 2 installs a handler with SA_RESTART: the system call goes on, and a wait for a lock or another
    process would notice Ctrl-C at its end.
    """
    signal.siginterrupt(signal.SIGINT, True)


def processor() -> str:
    """Return the name of the processor."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


@cache
def hardware() -> str:
    """Return the processor, its cores, the GPUs if any, and the versions of Python and the operating system."""
    import torch

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    parts = [processor() or platform.machine(), f"{os.cpu_count()} cores", *gpus]
    return ", ".join([*parts, f"Python {platform.python_version()}", f"{platform.system()} {platform.release()}"])
