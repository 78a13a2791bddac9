"""From scores to accept (+1), reject (−1) and unlabelled (0): score → threshold → noise → balance.

The steps are pure functions of arrays, `label_tables` applies them to tables: to those of a build before they are
stored, and in memory to stored ones (`Dataset.relabelled`), with equal labels row for row.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pmpo_offline.data import columns
from pmpo_offline.data.columns import Labels
from pmpo_offline.data.schema import CandidateLabels, Counts, Imbalance, Kind, LabelRule, Unit
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.random_words import random_words, uniforms


def cut(scores: NDArray[np.floating], rule: LabelRule) -> float:
    """Return the score at which `rule` splits `scores` (n,): the number itself, the quantile's value, or 0 for `sign`.

    A quantile is interpolated linearly between the known (not NaN) scores; it is NaN if none is known. If so many share
    the highest score that it is the quantile, the cut lies between it and the next lower one: nothing exceeds it.
    """
    if rule.threshold == "sign":
        return 0.0
    if rule.threshold == "number" and rule.value is not None:
        return rule.value
    if rule.threshold == "quantile" and rule.value is not None:
        known = np.asarray(scores, np.float64)[~np.isnan(scores)]
        if not len(known):
            return math.nan
        at = float(np.quantile(known, rule.value))
        lower = known[known < at]
        if rule.value < 1 and at == known.max() and len(lower):
            below = float(lower.max())
            return middle if (middle := (below + at) / 2) < at else below  # neighbouring floats have no middle
        return at
    raise UserError(f"label '{rule}' ranks the candidates of a state and has no threshold: use it on candidates")


def label(scores: NDArray[np.floating], rule: LabelRule) -> Labels:
    """Label `scores` (n,): +1 above the cut, −1 below or at it, 0 where NaN or within the dead zone.

    A score exactly at the cut is rejected; under `sign` it is 0. Numbers are compared in the scores' precision, so that
    the float32 score 0.1 does not exceed a threshold of 0.1.
    """
    at = cut(scores, rule)
    precision = np.float64 if rule.threshold == "quantile" else scores.dtype.type
    with np.errstate(over="ignore"):
        low, high = float(precision(at - rule.dead_zone)), float(precision(at + rule.dead_zone))
    values = np.asarray(scores, np.float64)  # else a cut between two float32 scores would be rounded to one of them
    labels = np.where(values > high, 1, -1).astype(np.int8)
    if rule.dead_zone or rule.threshold == "sign":
        labels[(low <= values) & (values <= high)] = 0
    labels[np.isnan(values)] = 0
    return labels


def rank(scores: NDArray[np.floating], k: int) -> Labels:
    """Label `scores` (states, K) within each state: the best k are +1, the worst k −1, the others and NaN are 0.

    Of equal scores the earlier candidate ranks higher. Where the k-th best and the k-th worst score are equal, the
    candidates of that score stay 0. So do all candidates of a state with fewer than 2k known scores.
    """
    states, width = scores.shape
    if not 1 <= k <= width // 2:
        raise UserError(
            f"top_bottom:{k} needs {2 * k} candidates per state, there are {width}: choose k up to {width // 2}"
        )
    order = np.argsort(-scores, axis=1, kind="stable")  # best first; NaN sorts last
    ranked = np.take_along_axis(scores, order, axis=1)
    known = (~np.isnan(scores)).sum(axis=1)
    place = np.arange(width)
    best, worst = place < k, (place >= known[:, None] - k) & (place < known[:, None])
    labels = best.astype(np.int8) - worst.astype(np.int8)
    kth_worst = ranked[np.arange(states), np.maximum(known - k, 0)]
    kth_best = ranked[:, k - 1]
    labels[(ranked == kth_best[:, None]) & (kth_best == kth_worst)[:, None]] = 0
    labels[known < 2 * k] = 0
    result: Labels = np.zeros_like(labels)
    np.put_along_axis(result, order, labels, axis=1)
    return result


def flip(labels: Labels, rate: float, seed: int) -> Labels:
    """Flip each label independently with probability `rate` (the mistakes of B-Pref, arXiv 2111.03026).

    The labels that a lower rate flips are among those that a higher rate flips. Unlabelled units stay unlabelled.
    """
    if not 0.0 <= rate <= 1.0:
        raise UserError(f"noise {rate:g}: expected a flip rate between 0 and 1")
    if rate == 0.0:
        return labels
    flipped = labels.copy()
    flipped[uniforms(labels.size, seed, "flip").reshape(labels.shape) < rate] *= -1
    return flipped


class Balanced(NamedTuple):
    """Labels (n,) at the requested share, and how many labels of each class were removed for it."""

    labels: Labels
    dropped_accepted: int
    dropped_rejected: int


def balance(labels: Labels, share: float | None, seed: int) -> Balanced:
    """Remove labels until the accepted units are `share` of the labelled ones, as nearly as whole units allow.

        share 0.25   accept ■■■■■■■■ → ■■□□□□□□     the first 2 of one seeded order of the accepts keep their labels,
                     reject ■■■■■■   → ■■■■■■       □ becomes unlabelled: no row is moved, copied or deleted

    Only the too frequent class loses labels. A unit's place in the order of its class depends on `seed` and its index
    alone: of two shares on one side of the collected one, the labels of the farther are among those of the nearer.
    None keeps the collected share.

    Raises `UserError` where the share is outside [0, 1] or there are not enough accepts or rejects for it.
    """
    accepts, rejects = np.flatnonzero(labels > 0), np.flatnonzero(labels < 0)
    if share is None:
        return Balanced(labels, 0, 0)
    keep_accepts, keep_rejects = _quota(len(accepts), len(rejects), share)
    order = random_words(labels.size, seed, "imbalance")
    dropped_accepts = accepts[np.argsort(order[accepts], kind="stable")][keep_accepts:]
    dropped_rejects = rejects[np.argsort(order[rejects], kind="stable")][keep_rejects:]
    result = labels.copy()
    result[dropped_accepts] = 0
    result[dropped_rejects] = 0
    return Balanced(result, len(dropped_accepts), len(dropped_rejects))


def _quota(accepts: int, rejects: int, share: float) -> tuple[int, int]:
    """Return how many of each class stay labelled."""
    if not 0.0 <= share <= 1.0:
        raise UserError(f"imbalance {share:g}: expected an accepted share between 0 and 1")
    if share * rejects < (1.0 - share) * accepts:  # too many accepts
        quota = (int(np.floor(share / (1.0 - share) * rejects + 0.5)), rejects)
    else:
        quota = (accepts, int(np.floor((1.0 - share) / share * accepts + 0.5)) if share else rejects)
    # Both classes are requested but one rounds to nothing, or the only requested class has no members.
    if (share > 0.0 and quota[0] == 0) or (share < 1.0 and quota[1] == 0):
        raise UserError(
            f"imbalance {share:g} is impossible with {accepts} accepted and {rejects} rejected units: "
            f"{_possible(accepts, rejects)}; or change the label rule"
        )
    return quota


def _possible(accepts: int, rejects: int) -> str:
    if accepts and rejects:
        return f"possible are {1 / (1 + rejects):.4g} to {accepts / (1 + accepts):.4g}, 0 and 1"
    return "possible is only 1" if accepts else "possible is only 0" if rejects else "nothing is labelled"


@dataclass(frozen=True)
class Labelling:
    """Settings of labels: the rule, then noise, then balance."""

    label: LabelRule
    imbalance: float | None = None
    """Accepted share of the labelled units; None: as collected."""
    noise: float = 0.0
    """Rate at which labels are flipped."""
    seed: int = 0


@dataclass(frozen=True, eq=False)
class LabelledTables:
    """Tables with their score and label columns, and what dataset.json holds about the labels."""

    table: pa.Table
    episodes: pa.Table | None
    candidates: pa.Table | None
    unit: Unit
    threshold: float | None
    imbalance: Imbalance
    counts: Counts
    reject_mass: float
    labelled_reject_mass: float
    reject_share: float
    candidate_labels: CandidateLabels | None

    @property
    def kind(self) -> Kind:
        """The kind of the dataset."""
        if self.episodes is None:
            return "responses"
        return "candidates" if self.unit == "response" else "transitions"

    @property
    def tables(self) -> dict[str, pa.Table]:
        """The tables by the names under which they are stored."""
        main = "responses" if self.episodes is None else "transitions"
        tables = {main: self.table, "episodes": self.episodes, "candidates": self.candidates}
        return {name: table for name, table in tables.items() if table is not None}

    @property
    def described(self) -> dict[str, Any]:
        """The fields of `Metadata` that follow from the labels, except `kind`."""
        names = ("unit", "threshold", "imbalance", "counts", "reject_mass", "labelled_reject_mass", "reject_share")
        return {name: getattr(self, name) for name in names} | {"candidates": self.candidate_labels}


class _Units(NamedTuple):
    """Labels of units before and after balancing; a unit of n rows weighs n in what is counted in rows."""

    before: Labels
    after: Labels
    imbalance: Imbalance
    weight: NDArray[np.integer]

    @property
    def counts(self) -> dict[str, int]:
        signs = {"accepted": 1, "rejected": -1, "unlabelled": 0}
        return {name: int((self.after == sign).sum()) for name, sign in signs.items()}

    @property
    def shares(self) -> dict[str, float]:
        rejected, labelled = self.weight[self.after < 0].sum(), self.weight[self.after != 0].sum()
        return {
            "reject_mass": float(self.weight[self.before < 0].sum() / max(1, self.weight.sum())),
            "labelled_reject_mass": float(rejected / max(1, self.weight.sum())),
            "reject_share": float(rejected / max(1, labelled)),
        }


def label_tables(
    table: pa.Table, episodes: pa.Table | None, labelling: Labelling, candidates: pa.Table | None = None
) -> LabelledTables:
    """Score and label the units of `table` (transitions, or responses if `episodes` is None).

    `return` and `success` are read from `episodes`, `return_to_go` (undiscounted) and a transition's `reward` from the
    rewards; for every other rule the column `score` must already hold the scores. Labels of episodes are given to all
    their rows; with labels of steps, `episodes` has none. Candidates are ranked within their state (`top_bottom` with
    half of K, or the k of a `q_rank` rule, which labels candidates only), with the same noise, share and seed.

    Warns of a rule that accepts or rejects nothing, and of scores that tie at a quantile.

    Raises `UserError` for a rule that these tables cannot serve and for an impossible share.
    """
    rule = labelling.label
    ranked: _Units | None = None
    if candidates is not None:
        candidates, ranked = _rank(candidates, labelling)
    units, threshold = ranked, None
    unit: Unit = "response"
    if rule.score != "q_rank":
        unit = "response" if episodes is None else rule.unit
        table, episodes, units, threshold = _split(table, episodes, labelling)
    elif episodes is not None:
        table, episodes = _without(table), _without(episodes)
    if units is None:
        raise UserError(
            f"label '{rule}' ranks candidate actions and there are none: declare [candidates] in the recipe"
        )
    return LabelledTables(
        table=table,
        episodes=episodes,
        candidates=candidates,
        unit=unit,
        threshold=threshold,
        imbalance=units.imbalance,
        counts=Counts(rows=table.num_rows, episodes=0 if episodes is None else episodes.num_rows, **units.counts),
        candidate_labels=None if ranked is None else _summary(ranked, candidates),
        **units.shares,
    )


def states_and_width(candidates: pa.Table) -> tuple[int, int]:
    """Return (states, K) of a candidates table; raises `UserError` unless each state has K consecutive rows."""
    rows = columns.vector(candidates, "row")
    width = int(np.searchsorted(rows, rows[0], side="right")) if len(rows) else 0
    if not width or len(rows) % width:
        raise UserError(f"candidates: {len(rows)} rows do not make equal groups of {width}")
    first = rows.reshape(-1, width)
    if (first != first[:, :1]).any() or (np.diff(first[:, 0]) <= 0).any():
        raise UserError(f"candidates: not sorted by row in groups of {width}")
    return len(rows) // width, width


def _scores(table: pa.Table, episodes: pa.Table | None, rule: LabelRule) -> NDArray[np.floating]:
    """Return the scores of the units, float32 for stored columns and float64 for what is computed here."""
    if episodes is None:
        if rule.score not in ("reward", "column"):
            raise UserError(f"label '{rule}': responses are scored by reward or column")
        return columns.vector(table, "score")
    if rule.score in ("return", "success"):
        return columns.vector(episodes, rule.score).astype(np.float64)
    if rule.score == "reward":
        return columns.vector(table, "reward")
    if rule.score == "return_to_go":
        rewards = columns.vector(table, "reward").astype(np.float64)
        ends = (columns.vector(episodes, "start") + columns.vector(episodes, "length"))[:-1]
        return np.concatenate([part[::-1].cumsum()[::-1] for part in np.split(rewards, ends)])
    return columns.vector(table, "score")


def _split(
    table: pa.Table, episodes: pa.Table | None, labelling: Labelling
) -> tuple[pa.Table, pa.Table | None, _Units, float | None]:
    """Label steps, episodes or responses by a threshold; return both tables, the units and the threshold."""
    rule = labelling.label
    scores = _scores(table, episodes, rule)
    by_episode = episodes is not None and rule.unit == "episode"
    weight = columns.vector(episodes, "length") if by_episode else np.ones(len(scores), np.int64)
    units = _finish(label(scores, rule), scores, labelling, weight)
    if by_episode:
        episodes = _with(episodes, scores, units.after)
    elif episodes is not None:
        episodes = _without(episodes)
    table = _with(table, np.repeat(scores, weight), np.repeat(units.after, weight))
    threshold = cut(scores, rule)
    if rule.threshold == "quantile" and (ties := int((scores == threshold).sum())) > 1:
        warnings.warn(f"label '{rule}': {ties:,} scores equal the threshold {threshold:g}: rejected", stacklevel=3)
    return table, episodes, units, None if np.isnan(threshold) else threshold


def _rank(candidates: pa.Table, labelling: Labelling) -> tuple[pa.Table, _Units]:
    """Label candidates by their rank within their state."""
    shape, rule = states_and_width(candidates), labelling.label
    k = int(rule.value or 1) if rule.score == "q_rank" else shape[1] // 2
    scores = columns.vector(candidates, "score")
    labels = rank(scores.reshape(shape), k).reshape(-1)
    units = _finish(labels, scores, labelling, np.ones(len(labels), np.int64))
    return _with(candidates, scores, units.after), units


def _summary(ranked: _Units, candidates: pa.Table) -> CandidateLabels:
    states, width = states_and_width(candidates)
    return CandidateLabels(states=states, per_state=width, imbalance=ranked.imbalance, **ranked.counts, **ranked.shares)


def _finish(labels: Labels, scores: NDArray[np.floating], labelling: Labelling, weight: NDArray[np.integer]) -> _Units:
    """Apply noise, then balance, so that the share is that of the labels which a learner sees."""
    empty = [name for name, sign in (("accepted", 1), ("rejected", -1)) if not (labels == sign).any()]
    if empty and not np.isnan(scores).all():
        low, high = np.nanmin(scores), np.nanmax(scores)
        warnings.warn(
            f"label '{labelling.label}': nothing is {' or '.join(empty)}; the scores lie between {low:g} and {high:g}",
            stacklevel=4,
        )
    noisy = flip(labels, labelling.noise, labelling.seed)
    balanced = balance(noisy, labelling.imbalance, labelling.seed)
    accepted, labelled = int((balanced.labels > 0).sum()), int((balanced.labels != 0).sum())
    imbalance = Imbalance(
        asked=labelling.imbalance,
        achieved=accepted / labelled if labelled else None,
        dropped_accepted=balanced.dropped_accepted,
        dropped_rejected=balanced.dropped_rejected,
    )
    return _Units(noisy, balanced.labels, imbalance, weight)


def _with(table: pa.Table, scores: NDArray[np.floating], labels: Labels) -> pa.Table:
    dtype = table.schema.field("score").type
    return columns.replace(table, score=columns.score_array(scores, dtype), label=columns.label_array(labels))


def _without(table: pa.Table) -> pa.Table:
    nothing = np.full(table.num_rows, np.nan)
    return _with(table, nothing, np.zeros(table.num_rows, np.int8))
