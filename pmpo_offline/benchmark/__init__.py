"""Many training runs, one table: a suite is expanded into cells, run, and reported from the raw scores alone."""

from __future__ import annotations

from .runner import Benchmark, bench, report_on

__all__ = ["Benchmark", "bench", "report_on"]
