"""Many training runs, one table: suite → cells → executor → raw scores → table and report.

How a cell is trained is in `training`, how its policies are scored in `evaluation`.
"""

from __future__ import annotations

from .runner import EXECUTORS, Benchmark, Executor, Local, Plan, bench, report_on

__all__ = ["EXECUTORS", "Benchmark", "Executor", "Local", "Plan", "bench", "report_on"]
