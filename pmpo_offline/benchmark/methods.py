"""What the charts of a report compare: methods, their roles, and the conditions that several methods share.

A *method* is an algorithm with the settings that tell it from the other rows, a *condition* a dataset with its labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from pmpo_offline.benchmark.report import condition, varying
from pmpo_offline.benchmark.table import Row, runs
from pmpo_offline.evaluation.statistics import Floats, iqm

ROLES = ("method", "clone", "control")


def role(row: Row) -> str:
    """Return what a row is for: a method, a clone that methods are compared with, or the control of shuffled labels."""
    if row["shuffled"]:
        return "control"
    return "clone" if row["reference"] or row["filtered"] else "method"


def methods(rows: Sequence[Row]) -> list[str]:
    """Return the name of each row's method: the algorithm, and its settings where it has several rows."""
    return [f"{row['algo']} {text}".rstrip() for row, text in zip(rows, varying(rows), strict=True)]


def run_scores(raw: pl.DataFrame) -> dict[str, Floats]:
    """Return the scores of each row's runs by its key."""
    return {str(key): frame["score"].to_numpy() for (key,), frame in runs(raw).group_by(["key"], maintain_order=True)}


def shared(raw: pl.DataFrame, rows: Sequence[Row]) -> tuple[list[str], dict[str, list[Floats]]]:
    """Return conditions, and the run scores in each by method, for methods that have scores in all of them.

    Of the conditions of each method, those are taken with the most scores: their number times that of the methods that
    have them all. Rows whose scores are returns are left out, as no scale compares them. The best IQM comes first.
    """
    scores, found = run_scores(raw), dict[str, dict[str, Floats]]()
    for row, name in zip(rows, methods(rows), strict=True):
        if row["metric"] == "normalized_score" and np.isfinite(scores[row["key"]]).all():
            found.setdefault(name, {})[condition(row)] = scores[row["key"]]
    if not found:
        return [], {}

    def having(conditions: frozenset[str]) -> list[str]:
        return [name for name, tasks in found.items() if conditions <= tasks.keys()]

    candidates = dict.fromkeys(frozenset(tasks) for tasks in found.values())
    most = max(candidates, key=lambda conditions: len(conditions) * len(having(conditions)))
    order = [name for name in dict.fromkeys(map(condition, rows)) if name in most]
    full = {name: [found[name][task] for task in order] for name in having(most)}
    return order, dict(sorted(full.items(), key=lambda item: -float(iqm(np.concatenate(item[1])))))
