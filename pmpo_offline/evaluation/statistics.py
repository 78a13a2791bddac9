"""Statistics of training runs: interquartile means with intervals, probability of improvement, profiles, ranks.

The unit of inference is the *training run*: a run's score is the mean normalized score of its evaluation episodes,
and only runs are resampled. Episodes of one run share a policy, so their spread is that policy's, not the algorithm's;
resampling them too would make any interval as narrow as there are episodes. Where labels are drawn, the unit is the
draw with all its runs.

Every function takes one array of run scores a task, `[(runs_1,), (runs_2,), …]`; one task is a list of one. Runs that
share a draw of the labels are a row of `(draws, runs)`. Scores are after Agarwal et al. 2021, "Deep Reinforcement
Learning at the Edge of the Statistical Precipice"; the intervals are other ones, because percentile bootstraps of few
runs are too narrow (benchmarks/results/intervals measures both).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import scipy  # its parts load where they are first used: a second that a worker seldom needs

Floats = npt.NDArray[np.float64]
LEVEL = 0.95
N = TypeVar("N", bound=Any)


def normalized(returns: N, low: N, high: N) -> N:
    """Return 100 (returns - low) / (high - low), never clipped, of numbers, arrays or columns.

    Fu et al., *D4RL*, arXiv 2004.07219, section 5; Minari's `get_normalized_score` is a hundredth of it.
    """
    return cast(N, 100 * (returns - low) / (high - low))


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its confidence interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A statistic of runs with its standard error, and the degrees of freedom of that."""

    value: float
    error: float
    freedom: float
    """Infinite where there is no spread to estimate."""

    @property
    def interval(self) -> Interval:
        """The t interval of level 95 %."""
        reach = float(scipy.stats.t.ppf((1 + LEVEL) / 2, self.freedom)) * self.error
        return Interval(self.value, self.value - reach, self.value + reach)

    @property
    def p_value(self) -> float:
        """The two-sided p-value of the hypothesis that the statistic is 0."""
        if not self.error:
            return float(self.value == 0)
        return float(2 * scipy.stats.t.sf(abs(self.value) / self.error, self.freedom))

    def __sub__(self, other: Estimate) -> Estimate:
        """Return the difference of two independent estimates (Welch)."""
        parts = [(self.error**2, self.freedom), (other.error**2, other.freedom)]
        return Estimate(self.value - other.value, math.hypot(self.error, other.error), _satterthwaite(parts))


def iqm(scores: Floats) -> Floats:
    """Return the interquartile mean over the last axis: the mean without the lowest and highest quarter.

    Of n scores ⌊n/4⌋ are cut at either end, so five runs keep their middle three and three runs keep all.
    """
    return np.asarray(scipy.stats.trim_mean(scores, 0.25, axis=-1), dtype=np.float64)


def estimate(
    scores: Sequence[npt.ArrayLike],
    statistic: Callable[[Floats], Floats] = iqm,
    *,
    replicates: int = 20_000,
    seed: int = 0,
) -> Estimate:
    """Return a statistic of the pooled run scores with its standard error.

    The error is the deviation of bootstrap replicates, each of which draws every task's units with replacement from
    that task alone; of n units it is multiplied by √(n / (n − 1)), as the deviation of a sample is. The degrees of
    freedom are n − 1, pooled over tasks after Welch and Satterthwaite. For the mean of one task that is Student's t.

    A task with a single unit has no spread that could be estimated and adds none. `statistic` reduces the last axis.
    """
    tasks = _tasks(scores)
    generator = np.random.default_rng(seed)
    pooled = np.concatenate([_resample(units, replicates, generator) for units in tasks], axis=1)
    value = float(statistic(np.concatenate([units.ravel() for units in tasks])))
    several = [units for units in tasks if len(units) > 1]
    if not several or all(np.ptp(units.mean(axis=1)) == 0 for units in several):
        return Estimate(value, 0.0, math.inf)
    # Each task's share of the variance, as that of the mean of all scores.
    parts = [(units.size**2 * units.mean(axis=1).var(ddof=1) / len(units), len(units) - 1.0) for units in several]
    shares = np.array([part for part, _ in parts]) / sum(part for part, _ in parts)
    bessel = float(sum(share * len(units) / (len(units) - 1) for share, units in zip(shares, several, strict=True)))
    error = float(statistic(pooled).std()) * math.sqrt(bessel)
    return Estimate(value, error, _satterthwaite(parts))


def interval(
    scores: Sequence[npt.ArrayLike],
    statistic: Callable[[Floats], Floats] = iqm,
    *,
    replicates: int = 20_000,
    seed: int = 0,
) -> Interval:
    """Return a statistic of the pooled run scores with its 95 % interval, as `estimate` explains.

    With single runs everywhere the interval is a point and means nothing.
    """
    return estimate(scores, statistic, replicates=replicates, seed=seed).interval


def probability_of_improvement(scores: Sequence[npt.ArrayLike], baseline: Sequence[npt.ArrayLike]) -> Interval:
    """Return how likely a run of one algorithm beats a run of the other, averaged over tasks; ties count one half.

    For one task this is the Mann-Whitney statistic U / (n·m). The interval holds the probabilities that are no farther
    from it than 1.96 of *their* standard errors, by Hanley and McNeil's variance (Newcombe 2006, "Confidence intervals
    for an effect size measure based on the Mann-Whitney statistic", method 5): it has a width even where all runs of
    one beat all of the other. Runs that share a draw of the labels are compared as if they did not.
    """
    ours, theirs = (([units.ravel() for units in _tasks(each)]) for each in (scores, baseline))
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} tasks cannot be compared with {len(theirs)}")
    pairs = list(zip(ours, theirs, strict=True))
    found = float(np.mean([_wins(runs, others) for runs, others in pairs]))
    if math.isnan(found):
        return Interval(found, found, found)
    sizes = [(len(runs), len(others)) for runs, others in pairs]
    reach = float(scipy.stats.norm.ppf((1 + LEVEL) / 2))

    def beyond(p: float) -> float:
        variance = float(np.mean([_hanley_mcneil(p, *size) for size in sizes])) / len(sizes)
        return abs(found - p) - reach * math.sqrt(variance)

    inside = min(max(found, 1e-9), 1 - 1e-9)  # at the ends themselves the variance is 0
    low = 0.0 if found == 0 else float(scipy.optimize.brentq(beyond, 0.0, inside))
    high = 1.0 if found == 1 else float(scipy.optimize.brentq(beyond, inside, 1.0))
    return Interval(found, low, high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979): rejecting those below 5 % errs at all in 5 % of cases."""
    order = np.argsort(p_values, kind="stable")
    scaled = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return [float(value) for value in corrected]


EXPERT = 100.0
Runs = Sequence[Floats]
"""Run scores of one method, one array a task, on the normalized scale where 100 is the expert."""


def optimality_gap(scores: Floats) -> Floats:
    """Return the mean shortfall from the expert over the last axis, max(0, 100 - score): lower is better."""
    return np.asarray(np.maximum(0.0, EXPERT - np.asarray(scores)).mean(axis=-1), dtype=np.float64)


STATISTICS: Mapping[str, Callable[[Floats], Floats]] = {
    "IQM": iqm,
    "mean": lambda scores: scores.mean(-1),
    "median": lambda scores: np.median(scores, -1),
    "optimality gap": optimality_gap,
}
"""Statistics of the pooled run scores by name; each reduces the last axis."""


def performance_profile(scores: Runs, thresholds: npt.ArrayLike) -> Floats:
    """Return the share of runs that score more than each threshold, averaged over tasks: the higher, the better."""
    at = np.asarray(thresholds, dtype=np.float64)
    return np.asarray(np.mean([(np.asarray(runs)[:, None] > at).mean(axis=0) for runs in scores], axis=0))


def rank_distribution(methods: Sequence[Runs], replicates: int) -> Floats:
    """Return how probable each rank is for each method, `(methods, methods)`, rows and columns summing to 1; 0 is best.

    Every replicate draws the runs of each method and task with replacement and ranks the methods by their mean score on
    the task; equal means are ranked in random order. Probabilities are averaged over tasks.
    """
    generator, count = np.random.default_rng(0), len(methods)
    if len({len(tasks) for tasks in methods}) != 1:
        raise ValueError("methods are ranked on the same tasks: expected equally many arrays of each")
    probability = np.zeros((count, count))
    for task in zip(*map(_tasks, methods), strict=True):
        means = np.stack([_resample(runs, replicates, generator).mean(axis=1) for runs in task])
        tie = generator.random(means.shape)
        order = np.lexsort((tie, -means), axis=0)  # (rank, replicate): which method
        probability += (order == np.arange(count)[:, None, None]).mean(axis=2)
    return probability / len(methods[0])


def mean_ranks(methods: Sequence[Runs]) -> Floats:
    """Return each method's rank by its mean score, averaged over tasks, from 1, the best; ties share their ranks."""
    means = np.array([[np.mean(runs) for runs in tasks] for tasks in methods])
    return np.asarray(scipy.stats.rankdata(-means, axis=0).mean(axis=1))


def _satterthwaite(parts: Sequence[tuple[float, float]]) -> float:
    """Return the degrees of freedom of a sum of independent variances, each with its own."""
    total = sum(variance for variance, _ in parts)
    spread = sum(variance**2 / freedom for variance, freedom in parts)
    return float(total**2 / spread) if spread else math.inf


def _hanley_mcneil(p: float, n: int, m: int) -> float:
    """Return the variance of the Mann-Whitney statistic of n and m runs where the probability is p."""
    half = (n + m) / 2 - 1
    return p * (1 - p) * (1 + half * ((1 - p) / (2 - p) + p / (1 + p))) / (n * m)


def _wins(runs: Floats, others: Floats) -> float:
    return float(((np.sign(runs[:, None] - others) + 1) / 2).mean())


def _resample(units: Floats, replicates: int, generator: np.random.Generator) -> Floats:
    """Return the scores of units (n, k) that are drawn with replacement, (replicates, n · k)."""
    drawn = generator.integers(len(units), size=(replicates, len(units)))
    return units[drawn].reshape(replicates, -1)


def _tasks(scores: Sequence[npt.ArrayLike]) -> list[Floats]:
    """Return the units of every task, (units, runs a unit)."""
    tasks = [np.asarray(runs, dtype=np.float64) for runs in scores]
    if not tasks or any(runs.ndim not in (1, 2) or not runs.size for runs in tasks):
        raise ValueError("scores: expected one non-empty array of run scores a task")
    return [runs.reshape(len(runs), -1) for runs in tasks]
