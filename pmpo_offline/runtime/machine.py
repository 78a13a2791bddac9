"""The machine: what figures hold for, and how its cores are used."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

SLEEPING = {"OMP_WAIT_POLICY": "passive"}
"""Environment in which torch is to be imported: its threads sleep while they wait for each other. On a machine that
others use too, two spinning ones took 3 times the processor time and 5 to 8 times as long."""


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
