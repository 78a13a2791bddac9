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
import scipy

from pmpo_offline.data import Dataset
from pmpo_offline.evaluation.language.drift import Floats, log_probabilities, measuring
from pmpo_offline.evaluation.language.held_out import as_read_by, held_out_responses
from pmpo_offline.policies.language.model import LanguageModel
from pmpo_offline.policies.language.tokens import Tokens
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.training.language.reference import Reference
from pmpo_offline.training.language.responses import TokenizedResponses, tokenize_responses


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
    responses = tokenize_responses(labelled, policy.tokenizer, policy.context or sys.maxsize)
    rows = responses.tokens
    known = as_read_by(reference, policy, rows, frame["prompt"]) or rows
    theirs = log_probabilities(reference, known) if cache is None else _cached(cache, reference, known)
    # The last digits depend on the other rows of a batch, and must not break ties.
    return compare(np.round(log_probabilities(policy, rows) - theirs, 3), responses)


def compare(reward: Floats, responses: TokenizedResponses) -> Preference:
    """Compare the rewards (n,) of labelled responses, within prompts and over all."""
    accepts, rejects = reward[responses.label > 0], reward[responses.label < 0]
    both = len(accepts) * len(rejects)
    ours, theirs = reward[responses.pairs].T
    return Preference(
        accuracy=float((np.sign(ours - theirs) + 1).mean() / 2) if len(ours) else None,
        auc=float(scipy.stats.mannwhitneyu(accepts, rejects, method="asymptotic").statistic) / both if both else None,
        margin=float(accepts.mean() - rejects.mean()) if both else None,
        pairs=len(ours),
        accepted=len(accepts),
        rejected=len(rejects),
    )


def _cached(cache: Path, reference: LanguageModel, rows: Sequence[Tokens]) -> Floats:
    """Return the reference's log-probabilities from its cache; if that cannot be written, compute them."""
    try:
        with measuring(reference.model):
            cached = Reference(reference, cache).rows(rows)
    except UserError:
        raise
    except PmpoOfflineError as error:
        warnings.warn(f"{error}; going on without it", stacklevel=2)
        return log_probabilities(reference, rows)
    return np.array([float(row.logp.double().sum()) for row in cached])
