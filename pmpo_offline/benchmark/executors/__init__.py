"""Where the units of a benchmark run: processes of this machine, a Ray cluster, Slurm.

An executor starts processes that call `work.run`; the store of results records what was run.
"""

from __future__ import annotations

from .executor import Executor, Outcome
from .local import Local

__all__ = ["Executor", "Local", "Outcome"]
