"""Whether a policy's implicit reward ranks held-out responses as their labels do.

A policy that was trained from feedback is a reward model of its own (Rafailov et al. 2023, arXiv 2305.18290, eq. 5,
up to a constant of the prompt):

    r(x, y) = β (log π(y | x) − log ρ(y | x))

Accuracy compares the responses of one prompt, where that constant cancels. The area under the curve compares all
responses, as unpaired feedback does. Neither depends on β > 0.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from pmpo_offline.data import Dataset
from pmpo_offline.evaluation.language.drift import drift
from pmpo_offline.evaluation.language.held_out import held_out_responses
from pmpo_offline.policies.language.model import LanguageModel
from pmpo_offline.tasks.language.sampling import context
from pmpo_offline.training.language.responses import read

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Preference:
    """How well implicit rewards rank labelled responses; None where there is nothing to compare."""

    accuracy: float | None
    """Share of the accept × reject pairs of a prompt that are ranked rightly; a tie is half right."""
    auc: float | None
    """The same over all accepts and rejects."""
    margin: float | None
    """Mean implicit reward of the accepts less that of the rejects, nats at β = 1."""
    pairs: int
    """Accept × reject pairs that share a prompt."""
    accepted: int
    rejected: int


def preference(
    policy: LanguageModel,
    reference: LanguageModel,
    dataset: Dataset,
    *,
    prompts: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Preference:
    """Score the labelled responses to held-out prompts (all, or as many as `held_out_prompts` chooses).

    They are read as the learners read theirs: one that was cut when it was sampled, or that the context cuts, has no
    end.
    """
    frame = held_out_responses(dataset, prompts).filter(pl.col("label").is_not_null())
    labelled = replace(dataset, table=frame.to_arrow())
    rows = read(labelled, policy.tokenizer, context=context(policy) or sys.maxsize).tokens
    reward = drift(policy, reference, rows, progress=progress).kl
    return compare(reward, frame["label"].to_numpy(), frame["prompt_id"].to_numpy())


def compare(reward: Floats, label: NDArray[np.bool_], group: NDArray[np.integer]) -> Preference:
    """Compare rewards (n,) of accepts (label True) and rejects, within groups of equal numbers and over all."""
    right, pairs = 0.0, 0
    for each in np.unique(group):
        wins, count = _wins(reward[(group == each) & label], reward[(group == each) & ~label])
        right, pairs = right + wins, pairs + count
    accepts, rejects = reward[label], reward[~label]
    wins, count = _wins(accepts, rejects)
    return Preference(
        accuracy=right / pairs if pairs else None,
        auc=wins / count if count else None,
        margin=float(accepts.mean() - rejects.mean()) if count else None,
        pairs=pairs,
        accepted=len(accepts),
        rejected=len(rejects),
    )


def _wins(accepts: Floats, rejects: Floats) -> tuple[float, int]:
    """Return in how many pairs the accept has the higher reward, ties half (Mann and Whitney's U), of how many."""
    ranks = stats.rankdata(np.concatenate([accepts, rejects]))
    count = len(accepts)
    return float(ranks[:count].sum()) - count * (count + 1) / 2, count * len(rejects)
