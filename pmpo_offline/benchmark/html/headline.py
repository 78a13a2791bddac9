"""A summary of a table in a few sentences: how methods compare with the filtered clones, and with the control."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from pmpo_offline.benchmark.methods import methods, role, shared
from pmpo_offline.benchmark.report import condition
from pmpo_offline.benchmark.table import Row
from pmpo_offline.evaluation.statistics import iqm


def headline(raw: pl.DataFrame, rows: Sequence[Row]) -> list[str]:
    """Return the sentences: of one condition with its numbers, of several how many are won."""
    groups: dict[str, list[tuple[Row, str]]] = {}
    for row, name in zip(rows, methods(rows), strict=True):
        if np.isfinite(row["iqm"]):
            groups.setdefault(condition(row), []).append((row, name))
    if len(groups) == 1:
        return _of_one(*groups.values())
    return _of_several(list(groups.values())) + _together(raw, rows)


def _of_one(group: list[tuple[Row, str]]) -> list[str]:
    learner, clone = _best(group)
    sentences = []
    if learner and clone:
        margin = learner[0]["iqm"] - clone[0]["iqm"]
        side = "above" if margin > 0 else "below"
        sentences.append(
            f"The best method is {_said(*learner)}: {abs(margin):.1f} {side} the better filtered clone, "
            f"{_said(*clone)}."
        )
    elif learner:
        sentences.append(f"The best method is {_said(*learner)}.")
    return sentences + [f"Control: {_said(row, name)}." for row, name in group if row["shuffled"]]


def _of_several(groups: list[list[tuple[Row, str]]]) -> list[str]:
    pairs = [(learner[0], clone[0]) for learner, clone in map(_best, groups) if learner and clone]
    if not pairs:
        return []
    above = sum(learner["iqm"] > clone["iqm"] for learner, clone in pairs)
    clear = sum(learner["low"] > clone["high"] for learner, clone in pairs)
    return [
        f"In {above} of {len(pairs)} conditions the best method scores above the better filtered clone, in {clear} of "
        "them by intervals that do not overlap."
    ]


def _together(raw: pl.DataFrame, rows: Sequence[Row]) -> list[str]:
    conditions, compared = shared(raw, rows)
    if len(conditions) < 2 or len(compared) < 2:
        return []
    first, tasks = next(iter(compared.items()))
    best = float(iqm(np.concatenate(tasks)))
    return [
        f"Of {len(compared)} methods with scores in {len(conditions)} conditions, {first} has the best IQM, {best:.1f}."
    ]


def _best(group: list[tuple[Row, str]]) -> tuple[tuple[Row, str] | None, tuple[Row, str] | None]:
    """Return the best method and the better filtered clone, None where there is none."""
    learners = [pair for pair in group if role(pair[0]) == "method"]
    clones = [pair for pair in group if pair[0]["filtered"] and not pair[0]["shuffled"]]
    return _first(learners), _first(clones)


def _first(pairs: list[tuple[Row, str]]) -> tuple[Row, str] | None:
    return max(pairs, key=lambda pair: float(pair[0]["iqm"]), default=None)


def _said(row: Row, name: str) -> str:
    interval = f" ({row['low']:.1f} – {row['high']:.1f})" if row["seeds"] > 1 else ""
    return f"{name} with {row['iqm']:.1f}{interval}"
