"""Perplexity on prose that is in no dataset: whether a policy still models the language of its reference.

    window 6, stride 3     tokens 0 1 2 3 4 5 6 7 8 9
    first row              reads  0 1 2 3 4              scores 1 2 3 4 5
    second row             reads        3 4 5 6 7        scores 6 7 8
    third row              reads          4 5 6 7 8      scores 9

Every token but the first is scored once, and after the first window with at least window − stride tokens before it.
The stride is half a window, as in the drawing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import torch

from pmpo_offline.declarations import catalog
from pmpo_offline.evaluation.language.drift import batches, measuring
from pmpo_offline.policies.language.model import LanguageModel
from pmpo_offline.policies.language.scoring import states, token_logp
from pmpo_offline.policies.language.tokens import Tokens, prompt_tokens, with_prefix
from pmpo_offline.runtime.errors import UserError

WINDOW = 512
"""Tokens that a model sees at most; its context, if that is shorter."""
BATCH = 8
"""Windows that are read at once."""


def perplexity(model: LanguageModel, text: str) -> float | None:
    """Return the perplexity of running prose in overlapping windows, None where the tokenizer cannot write it.

    It is exp(−mean log-probability of a token), infinite beyond what a float holds.

    Raises `UserError` for a text of fewer than two tokens.
    """
    ids, plain = prompt_tokens(model.tokenizer, text), prompt_tokens(with_prefix(model.tokenizer, ""), text)
    if not _writes(model, text, ids):
        return None
    if len(ids) < 2:
        raise UserError("perplexity: the text is shorter than two tokens")
    window, first = min(WINDOW, model.context or WINDOW), len(ids) - len(plain) + 1
    total = 0.0
    with measuring(model.model):
        for _, batch in batches(model, list(windows(ids, window, window // 2, first)), BATCH, "read held-out text"):
            logp = token_logp(model.model, states(model.model, batch), batch.target)
            total += float(logp.sum(dtype=torch.float64))
    try:
        return math.exp(-total / (len(ids) - first))
    except OverflowError:  # more than 709 nats a token: the logits have exploded
        return math.inf


def windows(ids: tuple[int, ...], window: int, stride: int, first: int = 1) -> Iterator[Tokens]:
    """Yield rows whose completions cover every token from `first` on once; their prompts are the tokens before.

    `first` is 1 unless a text comes before prompts, which is read and not scored.
    """
    end, scored = min(max(window, first + 1), len(ids)), first
    while scored < len(ids):
        start = max(0, end - window)
        yield Tokens(ids[start:scored], ids[scored:end])
        end, scored = min(end + stride, len(ids)), end


@cache
def prose() -> str:
    """Return the project's own text, about nine hundred words that were written for it."""
    return (catalog.root("datasets") / "language" / "prose.txt").read_text(encoding="utf-8")


def _writes(model: LanguageModel, text: str, ids: tuple[int, ...]) -> bool:
    """Return whether the tokens encode the text: small vocabularies replace or drop unknown words."""
    unknown, end = model.tokenizer.unk_token_id, model.tokenizer.eos_token_id
    # Every tokenizer needs at least a token a word of running text.
    return (unknown in (None, end) or unknown not in ids) and len(ids) >= len(text.split())
