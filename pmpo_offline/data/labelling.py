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
from pmpo_offline.data.schema import CandidateLabels, Counts, Imbalance
from pmpo_offline.errors import UserError


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
    reject_share: float
    candidate_labels: CandidateLabels | None

    @property
    def described(self) -> dict[str, Any]:
        """The fields of `Metadata` that follow from the labels."""
        fields = ("unit", "threshold", "imbalance", "counts", "reject_mass", "reject_share")
        return {name: getattr(self, name) for name in fields} | {"candidates": self.candidate_labels}


class _Labelled(NamedTuple):
    """Labels of units, before and after balancing, and what balancing did."""

    before: Labels
    after: Labels
    imbalance: Imbalance

    @property
    def accepted(self) -> int:
        return int((self.after > 0).sum())

    @property
    def rejected(self) -> int:
        return int((self.after < 0).sum())

    @property
    def unlabelled(self) -> int:
        return int((self.after == 0).sum())

    def reject_mass(self, weight: NDArray[np.integer] | int = 1) -> float:
        """Rejected / all, before balancing, each unit counted `weight` times."""
        return _ratio(((self.before < 0) * weight).sum(), (np.ones_like(self.before, np.int64) * weight).sum())

    def reject_share(self, weight: NDArray[np.integer] | int = 1) -> float:
        """Rejected / labelled, after balancing, each unit counted `weight` times."""
        return _ratio(((self.after < 0) * weight).sum(), ((self.after != 0) * weight).sum())


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
    found: _Labelled | None = None
    candidate_labels: CandidateLabels | None = None
    if candidates is not None:
        candidates, found, candidate_labels = _label_candidates(candidates, rule, noise, imbalance, seed)
    rows, episode_count = table.num_rows, 0 if episodes is None else episodes.num_rows

    if rule.score == "q_rank":
        if found is None or episodes is None:
            raise UserError(f"label '{rule}' ranks candidate actions and there are none: build with candidates first")
        counts = Counts(rows=rows, episodes=episode_count, accepted=found.accepted, rejected=found.rejected,
                        unlabelled=found.unlabelled)  # fmt: skip
        return LabelledTables(
            table=columns.replace(table, score=pa.nulls(rows, pa.float32()), label=pa.nulls(rows, pa.bool_())),
            episodes=_unlabelled(episodes), candidates=candidates, unit="response", threshold=None,
            imbalance=found.imbalance, counts=counts, reject_mass=found.reject_mass(),
            reject_share=found.reject_share(), candidate_labels=candidate_labels,
        )  # fmt: skip

    unit: Unit = "response" if episodes is None else rule.unit
    scores = _scores(table, episodes, rule)
    done = _finish(label(scores, rule), noise, imbalance, seed)
    lengths: NDArray[np.integer] | int = 1
    row_labels, row_scores = done.after, scores
    if episodes is not None and unit == "episode":
        lengths = columns.vector(episodes, "length")
        row_labels, row_scores = np.repeat(done.after, lengths), np.repeat(scores, lengths)
        episodes = columns.replace(
            episodes, score=columns.score_array(scores, pa.float64()), label=columns.label_array(done.after)
        )
    elif episodes is not None:
        episodes = _unlabelled(episodes)
    return LabelledTables(
        table=columns.replace(
            table, score=columns.score_array(row_scores, pa.float32()), label=columns.label_array(row_labels)
        ),
        episodes=episodes,
        candidates=candidates,
        unit=unit,
        threshold=cut(scores, rule),
        imbalance=done.imbalance,
        counts=Counts(rows=rows, episodes=episode_count, accepted=done.accepted, rejected=done.rejected,
                      unlabelled=done.unlabelled),
        reject_mass=done.reject_mass(lengths),
        reject_share=done.reject_share(lengths),
        candidate_labels=candidate_labels,
    )  # fmt: skip


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


def _label_candidates(
    candidates: pa.Table, rule: LabelRule, noise: float, share: float | None, seed: int
) -> tuple[pa.Table, _Labelled, CandidateLabels]:
    states, width = states_and_width(candidates)
    k = int(rule.value or 1) if rule.score == "q_rank" else width // 2
    scores = columns.vector(candidates, "score").reshape(states, width)
    done = _finish(rank(scores, k).reshape(-1), noise, share, seed)
    summary = CandidateLabels(
        states=states, per_state=width, accepted=done.accepted, rejected=done.rejected, unlabelled=done.unlabelled,
        imbalance=done.imbalance, reject_mass=done.reject_mass(), reject_share=done.reject_share(),
    )  # fmt: skip
    return columns.replace(candidates, label=columns.label_array(done.after)), done, summary


def _finish(labels: Labels, noise: float, share: float | None, seed: int) -> _Labelled:
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
    return _Labelled(noisy, balanced.labels, imbalance)


def _unlabelled(episodes: pa.Table) -> pa.Table:
    count = episodes.num_rows
    return columns.replace(episodes, score=pa.nulls(count, pa.float64()), label=pa.nulls(count, pa.bool_()))


def _ratio(part: np.integer, whole: np.integer) -> float:
    return float(part / whole) if whole else 0.0
