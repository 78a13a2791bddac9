"""Tables in, labelled tables out: score → threshold → noise → imbalance, the same for a build and for a view in memory.

`build` calls `label_tables` before it stores, `Dataset.relabelled` calls it on what was stored; being pure, it gives
both the same labels row for row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pmpo_offline.data import columns
from pmpo_offline.data.imbalance import balance
from pmpo_offline.data.labels import LabelRule, Labels, Unit, cut, flip, label, rank
from pmpo_offline.data.schema import CandidateLabels, Counts, Imbalance, Kind
from pmpo_offline.runtime.errors import UserError


@dataclass(frozen=True, eq=False)
class LabelledTables:
    """The tables with their score and label columns, and everything that dataset.json says about the labels."""

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
        """The kind of dataset that these labels make of the tables."""
        if self.episodes is None:
            return "responses"
        return "candidates" if self.unit == "response" else "transitions"

    @property
    def described(self) -> dict[str, Any]:
        """The fields of `Metadata` that follow from the labels, but for `kind`."""
        fields = ["unit", "threshold", "imbalance", "counts"]
        fields += ["reject_mass", "labelled_reject_mass", "reject_share"]
        return {name: getattr(self, name) for name in fields} | {"candidates": self.candidate_labels}


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
    table: pa.Table,
    episodes: pa.Table | None,
    rule: LabelRule,
    *,
    candidates: pa.Table | None = None,
    noise: float = 0.0,
    imbalance: float | None = None,
    seed: int = 0,
) -> LabelledTables:
    """Score and label the units of `table` (transitions, or responses if `episodes` is None).

    `return` and `success` are read from `episodes`, `return_to_go` (undiscounted) and a transition's `reward` from the
    rewards; for every other rule the column `score` must already hold the scores. Labels of episodes are given to all
    their rows; labels of steps leave `episodes` without. Candidates are ranked within their state (`top_bottom` with
    half of K, or the k of a `q_rank` rule, which labels nothing but candidates), with the same noise, share and seed.

    Raises `UserError` for a rule that these tables cannot serve and for an impossible share.
    """
    ranked: _Units | None = None
    if candidates is not None:
        candidates, ranked = _rank(candidates, rule, noise, imbalance, seed)
    units, threshold = ranked, None
    unit: Unit = "response"
    if rule.score != "q_rank":
        table, episodes, units, threshold = _split(table, episodes, rule, noise, imbalance, seed)
        unit = "response" if episodes is None else rule.unit
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
    table: pa.Table, episodes: pa.Table | None, rule: LabelRule, noise: float, share: float | None, seed: int
) -> tuple[pa.Table, pa.Table | None, _Units, float | None]:
    """Label steps, episodes or responses by a threshold; return both tables, the units and the threshold."""
    scores = _scores(table, episodes, rule)
    by_episode = episodes is not None and rule.unit == "episode"
    weight = columns.vector(episodes, "length") if by_episode else np.ones(len(scores), np.int64)
    units = _finish(label(scores, rule), noise, share, seed, weight)
    if by_episode:
        episodes = _with(episodes, scores, units.after)
    elif episodes is not None:
        episodes = _without(episodes)
    table = _with(table, np.repeat(scores, weight), np.repeat(units.after, weight))
    threshold = cut(scores, rule)
    return table, episodes, units, None if np.isnan(threshold) else threshold


def _rank(
    candidates: pa.Table, rule: LabelRule, noise: float, share: float | None, seed: int
) -> tuple[pa.Table, _Units]:
    """Label candidates by their rank within their state."""
    shape = states_and_width(candidates)
    k = int(rule.value or 1) if rule.score == "q_rank" else shape[1] // 2
    scores = columns.vector(candidates, "score")
    labels = rank(scores.reshape(shape), k).reshape(-1)
    units = _finish(labels, noise, share, seed, np.ones(len(labels), np.int64))
    return _with(candidates, scores, units.after), units


def _summary(ranked: _Units, candidates: pa.Table) -> CandidateLabels:
    states, width = states_and_width(candidates)
    return CandidateLabels(states=states, per_state=width, imbalance=ranked.imbalance, **ranked.counts, **ranked.shares)


def _finish(labels: Labels, noise: float, share: float | None, seed: int, weight: NDArray[np.integer]) -> _Units:
    """Apply noise, then balance: the share is one of the labels a learner sees."""
    noisy = flip(labels, noise, seed)
    balanced = balance(noisy, share, seed)
    accepted, labelled = int((balanced.labels > 0).sum()), int((balanced.labels != 0).sum())
    imbalance = Imbalance(
        asked=share,
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
