"""Score texts in bulk: log-probabilities, the drift of a policy from its reference, repeated words.

For a sample y of the policy π with the reference ρ, all in nats:

    kl             Σ_t log π(y_t | y_<t) − log ρ(y_t | y_<t)       its mean over samples is KL(π ‖ ρ); may be negative
    token_kl       mean_t Σ_v π(v | y_<t) log π(v | y_<t) / ρ(v | y_<t)      exact over the vocabulary; never negative

The second leaves out the chance in the choice of y_t given y_<t (it is Rao-Blackwellised), and so varies much less:
its sum over t has the same mean over samples as the first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pmpo_offline.objectives.divergences import categorical_kl
from pmpo_offline.policies.language.model import LanguageModel
from pmpo_offline.policies.language.scoring import log_probs, of_target, per_token, states, token_logp
from pmpo_offline.policies.language.tokens import TokenBatch, Tokens, collate
from pmpo_offline.runtime import progress

Floats = NDArray[np.float64]
BATCH = 64
"""Completions that are scored at once."""


@dataclass(frozen=True)
class Drift:
    """Sums over the completion's tokens of n rows, (n,) each, in nats; 0 for an empty completion."""

    logp: Floats
    """Σ log π."""
    reference_logp: Floats
    """Σ log ρ."""
    divergence: Floats
    """Σ KL(π ‖ ρ), exact over the vocabulary."""
    length: NDArray[np.int64]
    """Tokens, an end included."""

    @property
    def kl(self) -> Floats:
        """The log-ratio of each text; its mean over the policy's own samples estimates KL(π ‖ ρ)."""
        return self.logp - self.reference_logp


@contextmanager
def measuring(*models: nn.Module) -> Iterator[None]:
    """Switch dropout and gradients off, and restore the models' modes afterwards."""
    modes = [(model, model.training) for model in models]
    for model in models:
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for model, mode in modes:
            model.train(mode)


def batches(
    model: LanguageModel, rows: Sequence[Tokens], size: int, stage: str | None = None
) -> Iterator[tuple[list[int], TokenBatch]]:
    """Yield rows of like length together, as their indices and a batch on the model's device; reports a `stage`.

    The longest come first: memory runs out early or never.
    """
    order = sorted(range(len(rows)), key=lambda i: -(len(rows[i].prompt) + len(rows[i].completion)))
    for start in range(0, len(order), size):
        members = order[start : start + size]
        yield members, collate([rows[i] for i in members]).to(model.device)
        if stage is not None:
            progress.report(stage, start + len(members), len(rows))


def log_probabilities(model: LanguageModel, rows: Sequence[Tokens]) -> Floats:
    """Return the log-probability of each completion, (n,) nats."""
    logp = np.zeros(len(rows))
    with measuring(model.model):
        for members, batch in batches(model, rows, BATCH, "score texts"):
            tokens = token_logp(model.model, states(model.model, batch), batch.target).double()
            logp[members] = batch.reduce(tokens, "sum").cpu().numpy()
    return logp


def drift(
    policy: LanguageModel,
    reference: LanguageModel,
    rows: Sequence[Tokens],
    *,
    reference_rows: Sequence[Tokens] | None = None,
) -> Drift:
    """Score completions under both models; every position's distribution is computed once and serves all sums.

    Args:
        policy: the model that has moved.
        reference: the model that it has moved from.
        rows: prompts and completions.
        reference_rows: the same completions after prompts as the reference reads them; default `rows`.
    """
    logp, reference_logp, divergence = (np.zeros(len(rows)) for _ in range(3))

    def compared(log_pi: Tensor, places: Tensor, target: Tensor) -> Tensor:
        log_rho = log_probs(reference.model, places)
        divergence = categorical_kl(log_pi, log_rho).unsqueeze(0)
        return torch.cat([of_target(log_pi, target), of_target(log_rho, target), divergence])

    with measuring(policy.model, reference.model):
        for members, collated in batches(policy, rows, BATCH, "score texts"):
            ours = states(policy.model, collated)
            read = collated
            if reference_rows is not None:
                read = collate([reference_rows[i] for i in members]).to(reference.device)
            same = reference.model is policy.model and read is collated
            theirs = ours if same else states(reference.model, read)
            terms = per_token(policy.model, ours, compared, theirs, collated.target).double()
            for sums, values in zip((logp, reference_logp, divergence), terms, strict=True):
                sums[members] = collated.reduce(values, "sum").cpu().numpy()
    return Drift(logp, reference_logp, divergence, np.array([len(row.completion) for row in rows]))


def words(text: str) -> list[str]:
    """Return the words of a text in lower case: runs of letters, digits and apostrophes."""
    return re.findall(r"[\w'’]+", text.lower())


def distinct(texts: Sequence[str]) -> float | None:
    """Return the share of different words among all words of these texts (distinct-1); None where there are none.

    Li et al. 2016, arXiv 1510.03055. Over many texts it falls with their number, so only equal numbers compare; within
    one text it falls where the text repeats itself.
    """
    written = [word for text in texts for word in words(text)]
    return len(set(written)) / len(written) if written else None
