"""Held-out prompts and labelled responses, which nothing was trained on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl

from pmpo_offline.data import Dataset
from pmpo_offline.policies.language.model import LanguageModel
from pmpo_offline.policies.language.tokens import Tokens, prefix_of, prompt_tokens
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.runtime.hashing import random_words

SPLIT = "test"


def held_out_prompts(dataset: Dataset, count: int | None = None) -> pl.DataFrame:
    """Return the prompts of the split "test" as `prompt_id` (int32) and `prompt`, at most `count` of them.

    Their order is random and depends on their number alone: a smaller count takes the first of a larger one, and
    recipes that vary slowly along their prompts are still sampled evenly.

    Raises:
        UserError: the dataset holds no responses, or no held-out prompts.
    """
    frame = _test_rows(dataset).unique("prompt_id", keep="first", maintain_order=True).sort("prompt_id")
    order = np.argsort(random_words(frame.height, "held-out prompts"), kind="stable")
    return frame.select("prompt_id", "prompt")[order[:count]]


def held_out_responses(dataset: Dataset, count: int | None = None) -> pl.DataFrame:
    """Return the stored responses to `held_out_prompts(dataset, count)`: all columns of the table, labelled or not."""
    prompts = held_out_prompts(dataset, count)
    return prompts.select("prompt_id").join(_test_rows(dataset), on="prompt_id", how="left", maintain_order="left")


def completion_form(dataset: Dataset, model: LanguageModel) -> tuple[int, bool]:
    """Return the longest completion in tokens, its end counted, and whether completions end or are cut in a text.

    As the build recorded it, else as long as the longest held-out one, but at most what the longest held-out prompt
    leaves free of the context.
    """
    settings = dataset.metadata.provenance.settings
    ends, tokens = bool(settings.get("ends", True)), settings.get("tokens")
    if not isinstance(tokens, int):
        rows, most = _test_rows(dataset), model.context
        ids = model.tokenizer(rows["completion"].to_list(), add_special_tokens=False)["input_ids"]
        tokens = max(map(len, ids)) + ends
        if most is not None:
            tokens = min(
                tokens, most - max(len(prompt_tokens(model.tokenizer, text)) for text in rows["prompt"].unique())
            )
    return max(1, tokens), ends


def as_read_by(
    reference: LanguageModel, policy: LanguageModel, rows: Sequence[Tokens], prompts: Iterable[str]
) -> Sequence[Tokens] | None:
    """Return a policy's rows with their prompts as its reference reads them; None where that makes no difference.

    A policy may put a text before prompts that its reference knows nothing of (`tokens.with_prefix`).
    """
    if prefix_of(policy.tokenizer) == prefix_of(reference.tokenizer):
        return None
    return [
        Tokens(prompt_tokens(reference.tokenizer, prompt), row.completion)
        for row, prompt in zip(rows, prompts, strict=True)
    ]


def _test_rows(dataset: Dataset) -> pl.DataFrame:
    if dataset.metadata.kind != "responses":
        raise UserError(
            f"dataset {dataset.metadata.id} holds {dataset.metadata.kind}, and a language model needs texts"
        )
    frame = pl.DataFrame(pl.from_arrow(dataset.table)).filter(pl.col("split") == SPLIT)
    if frame.is_empty():
        raise UserError(
            f"dataset {dataset.metadata.id} holds out no prompts (split {SPLIT!r}): build or import it with some"
        )
    return frame
