"""Many training runs, one table: suite → cells → executor → raw scores → table and report.

`html` makes pages of results and of datasets, `leaderboard` checks submissions.
How a cell is trained is in `training`, how its policies are scored in `evaluation`.
"""

from __future__ import annotations

from .executors import EXECUTORS, Executor, Local, Outcome
from .plan import Plan, Unit
from .runner import Benchmark, bench, report_on

__all__ = ["EXECUTORS", "Benchmark", "Executor", "Local", "Outcome", "Plan", "Unit", "bench", "report_on"]
