"""Implicit reward: how well it ranks held-out responses by their labels.

A policy that was trained from feedback is a reward model of its own (Rafailov et al. 2023, arXiv 2305.18290, eq. 5,
up to a constant of the prompt):

    r(x, y) = β (log π(y | x) − log ρ(y | x))

Accuracy compares the responses of one prompt, where that constant cancels. The area under the curve compares all
responses, as unpaired feedback does. Neither depends on β > 0.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from pmpo_offline.data import Dataset
from pmpo_offline.evaluation.language.drift import Floats, log_probabilities, measuring
from pmpo_offline.evaluation.language.held_out import held_out_responses
from pmpo_offline.policies.language.model import LanguageModel
from pmpo_offline.policies.language.tokens import Tokens
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.tasks.language.sampling import context
from pmpo_offline.training.language.reference import Reference
from pmpo_offline.training.language.responses import tokenize_responses


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
    cache: Path | None = None,
) -> Preference:
    """Score the labelled responses to held-out prompts.

    They are tokenized as for training: a response that was cut when it was sampled, or by the context, has no end.

    Args:
        policy: its implicit rewards are measured.
        reference: its log-ratios are to this model.
        dataset: labelled responses.
        prompts: how many, as `held_out_prompts` chooses; None for all.
        cache: folder of the reference cache, where the reference's log-probabilities are read, or kept for the next
            policy; without one, or if it cannot be written, they are computed.
    """
    frame = held_out_responses(dataset, prompts).filter(pl.col("label").is_not_null())
    labelled = replace(dataset, table=frame.to_arrow())
    rows = tokenize_responses(labelled, policy.tokenizer, context(policy) or sys.maxsize).tokens
    theirs = log_probabilities(reference, rows) if cache is None else _cached(cache, reference, rows)
    # The last digits depend on the other rows of a batch, and must not break ties.
    reward = np.round(log_probabilities(policy, rows) - theirs, 3)
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


def _cached(cache: Path, reference: LanguageModel, rows: Sequence[Tokens]) -> Floats:
    """Return the reference's log-probabilities from its cache; if that cannot be written, compute them."""
    try:
        with measuring(reference.model):
            found = Reference(reference, cache).rows(rows)
    except UserError:
        raise
    except PmpoOfflineError as error:
        warnings.warn(f"{error}; going on without it", stacklevel=2)
        return log_probabilities(reference, rows)
    return np.array([float(row.logp.double().sum()) for row in found])


def _wins(accepts: Floats, rejects: Floats) -> tuple[float, int]:
    """Return in how many pairs the accept has the higher reward, ties half (Mann and Whitney's U), of how many."""
    ranks = stats.rankdata(np.concatenate([accepts, rejects]))
    count = len(accepts)
    return float(ranks[:count].sum()) - count * (count + 1) / 2, count * len(rejects)
