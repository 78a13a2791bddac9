"""From scores to accept (+1), reject (−1) and unlabelled (0): score → threshold → noise → balance.

The steps are pure functions of arrays, `label_tables` applies them to tables: to those of a build before they are
stored, and in memory to stored ones (`Dataset.relabelled`), with equal labels row for row.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pmpo_offline.data import columns, dropping
from pmpo_offline.data.columns import Labels, Tables
from pmpo_offline.data.schema import Balance, CandidateLabels, Counts, Imbalance, LabelRule, Metadata, Unit
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.hashing import random_words, uniforms


def cut(scores: NDArray[np.floating], rule: LabelRule) -> float:
    """Return the score at which `rule` splits `scores` (n,): the number itself, the quantile's value, or 0 for `sign`.

    A quantile is interpolated linearly between the known (not NaN) scores; it is NaN if none is known. If so many share
    the highest score that it is the quantile, the cut lies between it and the next lower one: nothing exceeds it.
    """
    if rule.threshold == "top_bottom":
        raise UserError(f"label '{rule}' ranks the candidates of a state and has no threshold: use it on candidates")
    if rule.threshold != "quantile":
        return rule.value or 0.0  # `sign` has no value
    known = np.asarray(scores, np.float64)[~np.isnan(scores)]
    if not len(known):
        return math.nan
    quantile = rule.value or 0.0
    at = float(np.quantile(known, quantile))
    lower = known[known < at]
    if quantile < 1 and at == known.max() and len(lower):
        below = float(lower.max())
        return middle if (middle := (below + at) / 2) < at else below  # neighbouring floats have no middle
    return at


def label(scores: NDArray[np.floating], rule: LabelRule) -> Labels:
    """Label `scores` (n,): +1 above the cut, −1 below or at it, 0 where NaN or within the margin.

    A score exactly at the cut is rejected; under `sign` it is 0. Numbers are compared in the scores' precision, so that
    the float32 score 0.1 does not exceed a threshold of 0.1.
    """
    return _split(scores, rule, cut(scores, rule))


def _split(scores: NDArray[np.floating], rule: LabelRule, at: float) -> Labels:
    """Label scores as `label` does, given the cut, for which a quantile is searched."""
    # A quantile may lie between two neighbouring numbers of that precision, and its margin ends at such a number.
    precision = np.float64 if rule.threshold == "quantile" and not rule.dead_zone else scores.dtype.type
    with np.errstate(over="ignore"):
        low, high = float(precision(at - rule.dead_zone)), float(precision(at + rule.dead_zone))
    values = np.asarray(scores, np.float64)  # else a cut between two float32 scores would be rounded to one of them
    labels = np.where(values > high, np.int8(1), np.int8(-1))
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


def balance(labels: Labels, share: float | None, seed: int) -> Labels:
    """Remove labels until the accepted units are `share` of the labelled ones, as nearly as whole units allow.

        share 0.25   accept ■■■■■■■■ → ■■□□□□□□     the first 2 of one seeded order of the accepts keep their labels,
                     reject ■■■■■■   → ■■■■■■       □ becomes unlabelled: no row is moved, copied or deleted

    Only the too frequent class loses labels. A unit's place in the order of its class depends on `seed` and its index
    alone: of two shares on one side of the collected one, the labels of the farther are among those of the nearer.
    None keeps the collected share.

    Raises `UserError` where the share is outside [0, 1] or there are not enough accepts or rejects for it.
    """
    if share is None:
        return labels
    accepts, rejects = np.flatnonzero(labels > 0), np.flatnonzero(labels < 0)
    order = random_words(labels.size, seed, "imbalance")
    result = labels.copy()
    for units, quota in zip((accepts, rejects), _quota(len(accepts), len(rejects), share), strict=True):
        result[units[np.argsort(order[units], kind="stable")][quota:]] = 0
    return result


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
        possible = "possible is only 1" if accepts else "possible is only 0" if rejects else "nothing is labelled"
        if accepts and rejects:
            possible = f"possible are {1 / (1 + rejects):.4g} to {accepts / (1 + accepts):.4g}, 0 and 1"
        raise UserError(
            f"imbalance {share:g} is impossible with {accepts} accepted and {rejects} rejected units: "
            f"{possible}; or change the label rule"
        )
    return quota


@dataclass(frozen=True)
class Labelling:
    """Settings of labels: the rule, then noise, then balance."""

    label: LabelRule
    imbalance: float | None = None
    """Accepted share of the labelled units; None: as collected."""
    noise: float = 0.0
    """Rate at which labels are flipped."""
    seed: int = 0
    balance: Balance = "labels"
    """What the units that exceed the share lose: their labels, or their rows too."""

    @property
    def shares(self) -> tuple[float | str | None, ...]:
        """What hashes hold of share and noise; "rows" only where it applies, so that all others stay the same."""
        return self.imbalance, self.noise, *(("rows",) if self.balance == "rows" else ())

    def __post_init__(self) -> None:
        """Raise `UserError` if rows are to be dropped for no share."""
        if self.balance == "rows" and self.imbalance is None:
            raise UserError("balance rows: no accepted share is given that rows could be dropped for: add an imbalance")


@dataclass(frozen=True, eq=False)
class LabelledTables(Tables):
    """Tables with their score and label columns, and what follows from the labels."""

    table: pa.Table
    episodes: pa.Table | None
    candidates: pa.Table | None
    described: dict[str, Any]
    """Fields of `Metadata`: kind, unit, threshold, counts, imbalance, masses and shares."""
    notes: list[str]
    """Empty classes, and scores that tie at a quantile."""

    def warn(self, dataset: str) -> None:
        """Issue a warning for each of the notes on this dataset."""
        for note in self.notes:
            warnings.warn(f"dataset {dataset}: {note}", stacklevel=3)


def label_tables(
    table: pa.Table, episodes: pa.Table | None, labelling: Labelling, candidates: pa.Table | None = None
) -> LabelledTables:
    """Score and label the units of `table` (transitions, or responses if `episodes` is None).

    `return` and `success` are read from `episodes`, `return_to_go` (undiscounted) and a transition's `reward` from the
    rewards; for every other rule the column `score` must already hold the scores, that of `episodes` if a source
    scored whole episodes. Labels of episodes are given to all their rows; with labels of steps, `episodes` has none.
    Candidates are ranked within their state (`top_bottom` with half of K, or the k of a `q_rank` rule, which labels
    candidates only), with the same noise, share and seed; those of rows that are dropped go with them, and of the
    others only labels are dropped.

    Raises `UserError` for a rule that these tables cannot serve and for an impossible share.
    """
    rule = labelling.label
    unit = "response" if episodes is None else _unit(episodes, rule)
    threshold, main, notes = None, None, list[str]()
    if rule.score == "q_rank":  # counts and shares are those of the candidates
        if candidates is None:
            raise UserError(
                f"label '{rule}' ranks candidate actions and there are none: declare [candidates] in the recipe"
            )
        if labelling.balance == "rows":
            raise UserError(
                f"balance rows: label '{rule}' is of candidates, of which every state needs all: drop labels"
            )
        table, episodes = _unlabelled(table), _unlabelled(episodes)
    else:
        scores = _scores(table, episodes, rule)
        threshold = cut(scores, rule)
        labels = _split(scores, rule, threshold)
        notes += _notes(labels, scores, rule, threshold)
        weight = columns.vector(episodes, "length") if unit == "episode" else np.ones(len(scores), np.int8)
        if labelling.balance == "rows":
            dropping.check_droppable(episodes, unit)
        main = _balanced(labels, labelling, weight, held_out(table if episodes is None else episodes))
        stored = scores.astype(table.schema.field("score").type.to_pandas_dtype())
        table = columns.replace(table, score=np.repeat(stored, weight), label=np.repeat(main.labels, weight))
        if unit == "episode":
            episodes = columns.replace(episodes, score=scores, label=main.labels)
        elif episodes is not None:
            episodes = _unlabelled(episodes)
        if not main.kept.all():
            table, episodes, candidates = dropping.without(table, episodes, candidates, main.kept)
    ranked: CandidateLabels | None = None
    if candidates is not None:
        candidates, ranked, note = _ranked(candidates, labelling)
        notes += note
    counted = main.counts if main else {name: getattr(ranked, name) for name in ("accepted", "rejected", "unlabelled")}
    described = {
        "kind": "responses" if episodes is None else "transitions" if main else "candidates",
        "unit": unit,
        "threshold": None if threshold is None or math.isnan(threshold) else threshold,
        "counts": Counts(rows=table.num_rows, episodes=0 if episodes is None else episodes.num_rows, **counted),
        "candidates": ranked,
        **(main.shares if main else {name: getattr(ranked, name) for name in _SHARES}),
    }
    return LabelledTables(table, episodes, candidates, described, notes)


def held_out(units: pa.Table) -> NDArray[np.bool_]:
    """Return which episodes or responses are of the split "test": evaluation needs them all."""
    return np.asarray(columns.vector(units, "split") == "test")


def _ranked(candidates: pa.Table, labelling: Labelling) -> tuple[pa.Table, CandidateLabels, list[str]]:
    """Rank candidates within their states, flip and balance their labels; return them, their shares, and notes."""
    states, width = columns.states_and_width(candidates)
    k = int(labelling.label.value or 1) if labelling.label.score == "q_rank" else width // 2
    scores = columns.vector(candidates, "score")
    labels, notes = rank(scores.reshape(states, width), k).reshape(-1), []
    if not labels.any() and not np.isnan(scores).all():
        notes.append(f"no candidate is labelled: nowhere do the best {k} scores of a state exceed the worst {k}")
    done = _balanced(labels, replace(labelling, balance="labels"), np.ones(len(labels), np.int8))
    candidates = columns.replace(candidates, score=scores, label=done.labels)
    return candidates, CandidateLabels(states=states, per_state=width, **done.counts, **done.shares), notes


def count_labels(labels: Labels) -> dict[str, int]:
    """Return the numbers of accepted, rejected and unlabelled units."""
    return {name: int((labels == sign).sum()) for name, sign in (("accepted", 1), ("rejected", -1), ("unlabelled", 0))}


def recounted(responses: pa.Table, was: Metadata) -> dict[str, Any]:
    """Return the fields of `Metadata` that follow from labels, for responses that are part of a dataset's."""
    labels = columns.labels(responses)
    here = _balanced(labels, Labelling(was.label), np.ones(len(labels), np.int8))
    imbalance = was.imbalance.model_copy(update={"achieved": here.shares["imbalance"].achieved})
    return {**here.shares, "imbalance": imbalance, "counts": Counts(rows=len(labels), episodes=0, **here.counts)}


_SHARES = ("imbalance", "reject_mass", "labelled_reject_mass", "reject_share")


@dataclass(frozen=True, eq=False)
class _Balanced:
    """Labels of units after noise and balance."""

    labels: Labels
    kept: NDArray[np.bool_]
    """Which units stay; the others lose their rows too."""
    counts: dict[str, int]
    """Of the kept units, by label."""
    shares: dict[str, Any]
    """The fields `_SHARES` of the metadata; a unit of n rows weighs n in shares of the rows."""


def _balanced(
    labels: Labels, labelling: Labelling, weight: NDArray[np.integer], held_out: NDArray[np.bool_] | None = None
) -> _Balanced:
    """Apply noise, then balance, so that the share is that of the labels which a learner sees.

    Where rows are dropped, the remaining ones count as all that was collected. Held-out units only lose their labels.
    """
    before = flip(labels, labelling.noise, labelling.seed)
    after = balance(before, labelling.imbalance, labelling.seed)
    collected, kept = before, np.ones(len(labels), np.bool_)
    if labelling.balance == "rows":
        collected, kept = after, (after == before) | (False if held_out is None else held_out)
    weight = weight * kept
    counts, flipped = count_labels(after[kept]), count_labels(before)
    labelled = counts["accepted"] + counts["rejected"]
    rows, rejected = max(1, weight.sum()), weight[after < 0].sum()
    shares = {
        "imbalance": Imbalance(
            asked=labelling.imbalance,
            achieved=counts["accepted"] / labelled if labelled else None,
            dropped_accepted=flipped["accepted"] - counts["accepted"],
            dropped_rejected=flipped["rejected"] - counts["rejected"],
            balance=labelling.balance,
        ),
        "reject_mass": float(weight[collected < 0].sum() / rows),
        "labelled_reject_mass": float(rejected / rows),
        "reject_share": float(rejected / max(1, weight[after != 0].sum())),
    }
    return _Balanced(after, kept, counts, shares)


def _notes(labels: Labels, scores: NDArray[np.floating], rule: LabelRule, threshold: float) -> list[str]:
    """Return one line if the rule leaves a class empty, or if several scores tie at a quantile."""
    if np.isnan(scores).all():
        return []
    counts = count_labels(labels)
    if empty := [name for name in ("accepted", "rejected") if not counts[name]]:
        low, high = np.nanmin(scores), np.nanmax(scores)
        which = f"every score is {low:g}" if low == high else f"the scores lie between {low:g} and {high:g}"
        advice = "choose another threshold or score unless that is meant"
        return [f"label '{rule}': nothing is {' or '.join(empty)}, {which}: {advice}"]
    ties = int((scores == threshold).sum()) if rule.threshold == "quantile" and not rule.dead_zone else 0
    at = f"label '{rule}': {ties:,} scores equal the threshold {threshold:g} and are rejected"
    return [f"{at}: choose a lower threshold to accept them"] if ties > 1 else []


def _unit(episodes: pa.Table, rule: LabelRule) -> Unit:
    """Return the unit of a label; a source's own scores (`column`) are of episodes where these have any."""
    if rule.score == "column":
        return "step" if episodes["score"].null_count == episodes.num_rows else "episode"
    return rule.unit


def _scores(table: pa.Table, episodes: pa.Table | None, rule: LabelRule) -> NDArray[np.floating]:
    """Return the scores of the units, float32 for stored columns and float64 for what is computed here."""
    if episodes is None:
        if rule.score not in ("reward", "column"):
            raise UserError(f"label '{rule}': responses are scored by reward or column")
        return columns.vector(table, "score")
    # A sum of float32 rewards is as exact as they are: a return of 0.1 does not exceed a threshold of 0.1.
    summed = np.float64 if rule.threshold == "quantile" else np.float32
    if rule.score in ("return", "success"):
        return columns.vector(episodes, rule.score).astype(summed)
    if _unit(episodes, rule) == "episode":  # imported as float32, although the table holds float64
        return columns.vector(episodes, "score").astype(np.float32)
    if rule.score == "return_to_go":
        rewards = columns.vector(table, "reward").astype(np.float64)
        ends = (columns.vector(episodes, "start") + columns.vector(episodes, "length"))[:-1]
        return np.concatenate([part[::-1].cumsum()[::-1] for part in np.split(rewards, ends)]).astype(summed)
    return columns.vector(table, "reward" if rule.score == "reward" else "score")


def _unlabelled(table: pa.Table) -> pa.Table:
    n = table.num_rows
    return columns.replace(table, score=np.full(n, np.nan), label=np.zeros(n, np.int8))
