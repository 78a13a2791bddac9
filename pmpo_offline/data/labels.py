"""From scores to accept (+1), reject (−1) and unlabelled (0): the rule's grammar, and the rule itself.

A rule is written `SCORE[:THRESHOLD[:DEAD_ZONE]]`:

    advantage            accept above 0, reject below, leave exactly 0 unlabelled    (advantage:sign)
    success              accept the successful episodes                              (success:0.5)
    return               accept the better half of the episodes                      (return:q0.5)
    return:q0.9          accept the best tenth
    advantage:0.1:0.05   accept above 0.15, reject below 0.05, leave what lies between unlabelled
    q_rank:top_bottom:1  of the K actions scored at each state, accept the best and reject the worst
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from pmpo_offline.runtime.errors import UserError, unknown
from pmpo_offline.runtime.random_words import uniforms

ScoreName = Literal["return", "return_to_go", "advantage", "q_rank", "success", "reward", "column"]
Unit = Literal["step", "episode", "response"]
Labels = NDArray[np.int8]

_DEFAULT_THRESHOLDS = {
    "success": "0.5",
    "return": "q0.5",
    "return_to_go": "q0.5",
    "q_rank": "top_bottom:2",
}  # all others: sign


class LabelRule(BaseModel):
    """A score and the threshold that splits it; `str(rule)` is the grammar that `parse` reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    score: ScoreName
    """What is compared."""
    threshold: Literal["number", "quantile", "sign", "top_bottom"]
    """How it is compared."""
    value: float | None = None
    """The number, the quantile in [0, 1], or the k of `top_bottom`; None for `sign`."""
    dead_zone: float = 0.0
    """Scores at most this far from the threshold stay unlabelled (score units, 0 or more)."""

    @classmethod
    def parse(cls, text: str) -> LabelRule:
        """Read `SCORE[:THRESHOLD[:DEAD_ZONE]]`; raises `UserError` that names the part it cannot read."""
        score, _, rest = text.strip().partition(":")
        if score not in get_args(ScoreName):
            raise unknown("score", score, get_args(ScoreName))
        parts = (rest or _DEFAULT_THRESHOLDS.get(score, "sign")).split(":")
        head = parts.pop(0)
        value: float | None
        if head == "top_bottom":
            threshold, value = "top_bottom", _number(parts.pop(0) if parts else "2", text)
        elif head == "sign":
            threshold, value = "sign", None
        elif head.startswith("q"):
            threshold, value = "quantile", _number(head[1:], text)
        else:
            threshold, value = "number", _number(head, text)
        dead_zone = _number(parts.pop(0), text) if parts else 0.0
        if parts:
            raise UserError(f"label {text!r}: nothing may follow the dead zone; write SCORE:THRESHOLD:DEAD_ZONE")
        if (threshold == "top_bottom") != (score == "q_rank"):
            raise UserError(f"label {text!r}: top_bottom:k goes with q_rank, and q_rank with nothing else")
        if threshold == "top_bottom" and (dead_zone or value is None or value < 1 or value != int(value)):
            raise UserError(f"label {text!r}: top_bottom takes a whole number of 1 or more and no dead zone")
        if threshold == "quantile" and not 0.0 <= (value or 0.0) <= 1.0:
            raise UserError(f"label {text!r}: a quantile lies between q0 and q1")
        if dead_zone < 0:
            raise UserError(f"label {text!r}: a dead zone is 0 or more")
        return cls.model_validate({"score": score, "threshold": threshold, "value": value, "dead_zone": dead_zone})

    def __str__(self) -> str:
        """Return the rule in the grammar that `parse` reads."""
        value = "" if self.value is None else _exact(self.value)
        threshold = {"number": value, "quantile": f"q{value}", "sign": "sign", "top_bottom": f"top_bottom:{value}"}
        return ":".join([self.score, threshold[self.threshold], *([_exact(self.dead_zone)] if self.dead_zone else [])])

    @property
    def unit(self) -> Unit:
        """What one label is given to in a dataset of transitions; in one of responses it is always a response."""
        if self.score == "q_rank":
            return "response"
        return "episode" if self.score in ("return", "success") else "step"


def _number(text: str, rule: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"label {rule!r}: {text!r} is neither a number, a quantile such as q0.5, sign nor top_bottom:k")
    return value


def _exact(number: float) -> str:
    # Every digit, because datasets are named and hashed by this text; adding 0.0 makes 0 of -0.
    return repr(number + 0.0).removesuffix(".0")


def cut(scores: NDArray[np.floating], rule: LabelRule) -> float:
    """Return the score at which `rule` splits `scores` (n,): the number itself, the quantile's value, or 0 for `sign`.

    A quantile is interpolated linearly between the known (not NaN) scores; with none known it is NaN.
    """
    if rule.threshold == "sign":
        return 0.0
    if rule.threshold == "number" and rule.value is not None:
        return rule.value
    if rule.threshold == "quantile" and rule.value is not None:
        known = np.asarray(scores, np.float64)[~np.isnan(scores)]
        return float(np.quantile(known, rule.value)) if len(known) else math.nan
    raise UserError(f"label '{rule}' ranks the candidates of a state and has no threshold: use it on candidates")


def label(scores: NDArray[np.floating], rule: LabelRule) -> Labels:
    """Label `scores` (n,): +1 above the cut, −1 below or at it, 0 where NaN or within the dead zone.

    At exactly the cut a score is rejected, as a threshold must be passed; under `sign` it says nothing and is 0.
    """
    distance = np.asarray(scores, np.float64) - cut(scores, rule)
    labels = np.where(distance > 0, 1, -1).astype(np.int8)
    silent = np.isnan(distance)
    if rule.threshold == "sign":
        silent |= distance == 0
    if rule.dead_zone:
        silent |= np.abs(distance) <= rule.dead_zone
    labels[silent] = 0
    return labels


def rank(scores: NDArray[np.floating], k: int) -> Labels:
    """Label `scores` (states, K) within each state: the best k are +1, the worst k −1, the others and NaN are 0.

    Of equal scores the earlier candidate ranks higher. Where the k-th best and the k-th worst score are equal, nothing
    tells them apart, and the candidates of that score stay 0. A state with fewer than 2k known scores stays 0 whole.
    """
    states, width = scores.shape
    if not 1 <= k <= width // 2:
        raise UserError(
            f"top_bottom:{k} needs {2 * k} candidates a state, here are {width}: choose k up to {width // 2}"
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
    """Turn each label, independently with probability `rate`, into its opposite (B-Pref's mistakes, arXiv 2111.03026).

    The labels that a lower rate flips are among those that a higher rate flips. Unlabelled units stay unlabelled.
    """
    if not 0.0 <= rate <= 1.0:
        raise UserError(f"noise {rate:g} is a flip rate: choose one between 0 and 1")
    if rate == 0.0:
        return labels
    flipped = labels.copy()
    flipped[uniforms(labels.size, seed, "flip").reshape(labels.shape) < rate] *= -1
    return flipped
