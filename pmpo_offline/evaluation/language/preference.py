"""Whether a policy's implicit reward ranks held-out responses as their labels do.

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
from pmpo_offline.evaluation.language.held_out import held_out_responses
from pmpo_offline.evaluation.language.measuring import batches_by_length, measuring
from pmpo_offline.policies.language.model import LanguageModel
from pmpo_offline.policies.language.scoring import states, token_logp
from pmpo_offline.policies.language.tokens import Tokens, collate
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.tasks.language.sampling import context
from pmpo_offline.training.language.reference_cache import ReferenceCache
from pmpo_offline.training.language.responses import read

Floats = NDArray[np.float64]

BATCH = 64
"""Responses that are scored at once."""


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

    They are read as the learners read theirs: one that was cut when it was sampled, or that the context cuts, has no
    end.

    Args:
        policy: whose implicit rewards these are.
        reference: what its log-ratios are to.
        dataset: labelled responses.
        prompts: how many, as `held_out_prompts` chooses; None for all.
        cache: folder of the reference cache, where what the reference says is read, or kept for the next policy; None,
            or one that may not be written: it is run.
    """
    frame = held_out_responses(dataset, prompts).filter(pl.col("label").is_not_null())
    labelled = replace(dataset, table=frame.to_arrow())
    rows = read(labelled, policy.tokenizer, context=context(policy) or sys.maxsize).tokens
    theirs = _logp(reference, rows) if cache is None else _kept(cache, reference, rows)
    # The last digits depend on what shares a batch, and must not tell apart what is equal.
    reward = np.round(_logp(policy, rows) - theirs, 3)
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


def _logp(model: LanguageModel, rows: Sequence[Tokens]) -> Floats:
    """Return the log-probability of each completion, (n,) nats."""
    found, done = np.zeros(len(rows)), 0
    with measuring(model.model):
        for members in batches_by_length(rows, BATCH):
            batch = collate([rows[i] for i in members]).to(model.device)
            tokens = token_logp(model.model, states(model.model, batch), batch.target).double()
            found[members] = batch.reduce(tokens, "sum").cpu().numpy()
            done += len(members)
            progress.report("score texts", done, len(rows))
    return found


def _kept(cache: Path, reference: LanguageModel, rows: Sequence[Tokens]) -> Floats:
    """Return the same of the reference, from its cache; where that may not be written, it is run."""
    try:
        with measuring(reference.model):
            found = ReferenceCache(cache, reference).get(rows)
    except UserError:
        raise
    except PmpoOfflineError as error:
        warnings.warn(f"{error}; going on without it", stacklevel=2)
        return _logp(reference, rows)
    return np.array([float(row.logp.double().sum()) for row in found])


def _wins(accepts: Floats, rejects: Floats) -> tuple[float, int]:
    """Return in how many pairs the accept has the higher reward, ties half (Mann and Whitney's U), of how many."""
    ranks = stats.rankdata(np.concatenate([accepts, rejects]))
    count = len(accepts)
    return float(ranks[:count].sum()) - count * (count + 1) / 2, count * len(rejects)
