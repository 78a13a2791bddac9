"""Summaries of several methods over several tasks: performance profiles, the optimality gap, and ranks.

As in `statistics`, the unit is the training run: every function takes one array of run scores a task,
`[(runs_1,), (runs_2,), …]`, on the normalized scale where 100 is the expert.
After Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice", sections 4.1 to 4.3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import scipy

from pmpo_offline.evaluation.statistics import Floats, iqm

EXPERT = 100.0
Runs = Sequence[Floats]
"""Run scores of one method, one array a task."""


def optimality_gap(scores: Floats) -> Floats:
    """Return the mean shortfall from the expert over the last axis, max(0, 100 - score): lower is better."""
    return np.asarray(np.maximum(0.0, EXPERT - np.asarray(scores)).mean(axis=-1), dtype=np.float64)


def _mean(scores: Floats) -> Floats:
    return np.asarray(np.mean(scores, axis=-1), dtype=np.float64)


def _median(scores: Floats) -> Floats:
    return np.asarray(np.median(scores, axis=-1), dtype=np.float64)


STATISTICS: Mapping[str, Callable[[Floats], Floats]] = {
    "IQM": iqm,
    "mean": _mean,
    "median": _median,
    "optimality gap": optimality_gap,
}
"""Statistics of the pooled run scores by name; each reduces the last axis."""


def performance_profile(scores: Runs, thresholds: npt.ArrayLike) -> Floats:
    """Return the share of runs that score more than each threshold, averaged over tasks: the higher, the better."""
    at = np.asarray(thresholds, dtype=np.float64)
    return np.asarray(np.mean([(np.asarray(runs)[:, None] > at).mean(axis=0) for runs in scores], axis=0))


def rank_distribution(methods: Sequence[Runs], *, replicates: int = 2_000, seed: int = 0) -> Floats:
    """Return how probable each rank is for each method, `(methods, methods)`, rows and columns summing to 1; 0 is best.

    Every replicate draws the runs of each method and task with replacement and ranks the methods by their mean score on
    the task; equal means are ranked in random order. Probabilities are averaged over tasks.
    """
    generator, count = np.random.default_rng(seed), len(methods)
    if len({len(tasks) for tasks in methods}) != 1:
        raise ValueError("methods are ranked on the same tasks: expected equally many arrays of each")
    probability = np.zeros((count, count))
    for task in zip(*methods, strict=True):
        means = np.stack([_resampled(np.asarray(runs, dtype=np.float64), replicates, generator) for runs in task])
        tie = generator.random(means.shape)
        order = np.lexsort((tie, -means), axis=0)  # (rank, replicate): which method
        for rank in range(count):
            probability[:, rank] += np.bincount(order[rank], minlength=count) / replicates
    return probability / len(methods[0])


def mean_ranks(methods: Sequence[Runs]) -> Floats:
    """Return each method's rank by its mean score, averaged over tasks, from 1, the best; ties share their ranks."""
    means = np.array([[np.mean(runs) for runs in tasks] for tasks in methods])
    return np.asarray(scipy.stats.rankdata(-means, axis=0).mean(axis=1))


def _resampled(runs: Floats, replicates: int, generator: np.random.Generator) -> Floats:
    drawn: Floats = runs[generator.integers(len(runs), size=(replicates, len(runs)))].mean(axis=1)
    return drawn
