"""The machine that figures hold for."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path


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
