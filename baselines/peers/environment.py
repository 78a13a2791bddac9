"""The peers' environment, `make peers`: its Python runs our scripts of other libraries, and says their versions."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-peers" / "bin" / "python"


def run(*arguments: object, python: Path = PYTHON) -> str:
    """Run the peers' Python on one thread and return what it prints; an error of the other library ends this script."""
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    if not python.exists():
        raise SystemExit(f"{python} is missing: run `make peers`")
    command = [str(python), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **threads})
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with code {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def version(package: str, python: Path = PYTHON) -> str:
    """Return the version of a package there."""
    ask = f"from importlib.metadata import version; print(version({package!r}))"
    return run("-c", ask, python=python).strip()
