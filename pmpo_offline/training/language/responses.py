"""Responses as tokens, and the rows, pairs and groups of a prompt that can be drawn from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from pmpo_offline.data import Dataset, columns
from pmpo_offline.policies.language.tokens import Tokens, prompt_tokens, tokenize, tokenize_jointly, with_prefix
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TokenizedResponses:
    """R rows: a prompt and one completion each."""

    name: str
    """Of the dataset, for messages."""
    tokens: Sequence[Tokens]
    label: NDArray[np.int8]
    """(R,): +1 accept, −1 reject, 0 unlabelled."""
    score: NDArray[np.float32]
    """(R,), NaN where absent."""
    prompt: Indices
    """(R,): rows of equal number answer the same prompt, and are compared with one another."""
    paired: bool = False
    """Whether every two rows are one row of a dataset of pairs."""
    shown: Mapping[int, Sequence[Tokens]] = field(default_factory=dict)
    """The rows behind the text of each label, by its sign, for an objective that shows a model the label."""

    def __len__(self) -> int:
        """Return R."""
        return len(self.tokens)

    @cached_property
    def lengths(self) -> Indices:
        """(R,), tokens of prompt and completion."""
        return np.array([len(prompt) + len(completion) for prompt, completion in self.tokens], np.int64)

    @cached_property
    def pairs(self) -> Indices:
        """(P, 2), the rows of every pair of an accepted and a rejected response to one prompt."""
        found = []
        for rows in self._by_prompt:
            accepts, rejects = rows[self.label[rows] > 0], rows[self.label[rows] < 0]
            found.append(np.stack([accepts.repeat(len(rejects)), np.tile(rejects, len(accepts))], axis=1))
        return np.concatenate(found) if found else np.empty((0, 2), np.int64)

    @cached_property
    def groups(self) -> Indices:
        """(G, K), the scored rows of every prompt that has two or more of them; −1 pads the shorter groups."""
        scored = [rows[~np.isnan(self.score[rows])] for rows in self._by_prompt]
        several = [rows for rows in scored if len(rows) > 1]
        groups = np.full((len(several), max(map(len, several), default=0)), -1, np.int64)
        for group, rows in zip(groups, several, strict=True):
            group[: len(rows)] = rows
        return groups

    @cached_property
    def advantage(self) -> NDArray[np.float32]:
        """(R,), each score less the mean score of its prompt; NaN if its prompt has no other scored response."""
        advantage = np.full(len(self), np.nan, np.float32)
        for group in self.groups:
            rows = group[group >= 0]
            advantage[rows] = self.score[rows] - self.score[rows].mean()
        return advantage

    @cached_property
    def accept_rate(self) -> NDArray[np.float32]:
        """(R,), the accepted share of the labelled responses to each row's prompt; 0 where there are none."""
        accepts, labelled = (np.bincount(self.prompt, weights=rows) for rows in (self.label > 0, self.label != 0))
        return (accepts / np.maximum(labelled, 1))[self.prompt].astype(np.float32)

    @cached_property
    def _by_prompt(self) -> list[Indices]:
        order = np.argsort(self.prompt, kind="stable")
        ends = np.flatnonzero(np.diff(self.prompt[order])) + 1
        return np.split(order, ends) if len(order) else []

    def given_label(self, rows: Indices) -> list[Tokens]:
        """Return rows behind the text of their label; unlabelled ones as they are."""
        return [self.shown.get(int(self.label[row]), self.tokens)[row] for row in rows]

    def top(self, share: float) -> Indices:
        """Return the rows with the highest scores, this share of the scored ones."""
        known = np.flatnonzero(~np.isnan(self.score))
        count = round(share * len(known))
        return np.sort(known[np.argsort(-self.score[known], kind="stable")][:count])

    def shuffled(self, seed: int) -> TokenizedResponses:
        """Permute labels and scores among all rows: a control with uninformative feedback.

        They are permuted independently: otherwise rows with a score but no label would tell accepts from rejects.
        """
        label = self.label[np.random.default_rng([seed, 7]).permutation(len(self))]
        score = self.score[np.random.default_rng([seed, 8]).permutation(len(self))]
        return replace(self, label=label, score=score)


def take_split(dataset: Dataset, split: str) -> Dataset:
    """Return the prompts of one split, "train" or "test"; counts and reject masses are those of the remaining rows.

    The bound of PMPO depends on the rows that are trained on, so these must not count the held-out ones. The masses are
    the labelled ones, after balancing (`Setup.reject_mass` takes these where rows have contexts): a prompt has several
    responses, of which balancing drops some labels, but no two long responses are alike, and a network that memorises
    single responses is pushed away from the labelled ones only.

    It does not matter if one prompt's responses are rejected more often than another's: PMPO averages each class over
    all prompts together, so every reject weighs 1 / P_r of what the divergence weighs there, with P_r the mass over all
    prompts. Summed over tokens, that holds at every prefix; with the mean over tokens it shifts with the length of
    rejects relative to the others.

    Raises `UserError` for transitions, and for a split without rows.
    """
    if dataset.metadata.kind != "responses":
        raise UserError(
            f"dataset {dataset.metadata.id} holds {dataset.metadata.kind}: a language model needs responses"
        )
    table = dataset.table.filter(pc.equal(dataset.table.column("split"), split))
    if not len(table):
        raise UserError(f"dataset {dataset.metadata.id} has no rows of the split {split}")
    label = columns.labels(table)
    accepted, rejected = int((label > 0).sum()), int((label < 0).sum())
    counts = dataset.metadata.counts.model_copy(
        update={"rows": len(label), "accepted": accepted, "rejected": rejected, "unlabelled": int((label == 0).sum())}
    )
    masses = {"labelled_reject_mass": rejected / len(label), "reject_share": rejected / max(1, accepted + rejected)}
    return replace(dataset, table=table, metadata=dataset.metadata.model_copy(update={"counts": counts, **masses}))


def tokenize_responses(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, context: int) -> TokenizedResponses:
    """Return the rows of a dataset of responses as tokens; completions that do not fit are cut, without an end.

    Args:
        dataset: of responses. Its provenance may declare whether completions end (`ends`, default true), and their
            greatest length (`tokens`): a completion that was cut when it was sampled has no end here either. Where
            it says `joint` the tokens are those of `tokenize_jointly`; `paired`: every two rows are a pair.
        tokenizer: the model's.
        context: the most tokens of a row, prompt and completion together.

    Raises:
        UserError: a null text, or a prompt that leaves no room for a completion.
    """
    name, table = dataset.metadata.id, dataset.table
    prompts, completions = table.column("prompt").to_pylist(), table.column("completion").to_pylist()
    settings = dataset.metadata.provenance.settings
    ends, longest = bool(settings.get("ends", True)), _longest(dataset)
    jointly, paired = bool(settings.get("joint")), bool(settings.get("paired"))
    tokens: list[Tokens] = []

    @cache  # a short answer is often given twice
    def tokenized(prompt: str, completion: str) -> Tokens:
        if jointly:
            return tokenize_jointly(tokenizer, prompt, completion, chat=not ends)
        return tokenize(tokenizer, prompt, completion, ends=ends, longest=longest)

    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        if prompt is None or completion is None:
            raise UserError(f"{name}: row {row} has no {'prompt' if prompt is None else 'completion'}: leave it out")
        head, tail = tokenized(prompt, completion)
        room = context - len(head)
        if room < 1:
            raise UserError(
                f"{name}: the prompt of row {row} has {len(head)} tokens and the context {context}: shorten it, "
                "leave it out, or raise max_length as far as the model reaches"
            )
        tokens.append(Tokens(head, tail[:room]))
        if row % 500 == 499 or row + 1 == len(prompts):
            progress.report("tokenize", row + 1, len(prompts))
    if jointly and paired:
        for row in range(0, len(tokens), 2):
            tokens[row : row + 2] = _from_one_place(*tokens[row : row + 2])
    return TokenizedResponses(
        name,
        tokens,
        columns.labels(table),
        columns.vector(table, "score").astype(np.float32),
        columns.vector(table, "prompt_id").astype(np.int64),
        paired,
    )


def behind_labels(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], context: int
) -> TokenizedResponses:
    """Return `tokenize_responses` of a tokenizer without a text before prompts, with the rows behind each label's text.

    Args:
        dataset: of responses.
        tokenizer: the model's, with or without a text.
        texts: of accepts and of rejects.
        context: the most tokens of a row, its text included.

    Raises:
        UserError: texts that are the same tokens to the model, and as in `tokenize_responses`.
    """
    hidden, accept, reject = (
        tokenize_responses(dataset, with_prefix(tokenizer, text), context) for text in ("", *texts)
    )
    if accept.tokens == reject.tokens:
        written = " and ".join(map(repr, texts))
        raise UserError(f"{written} are the same tokens to this model, which cannot tell the labels apart: change one")
    return replace(hidden, shown={1: accept.tokens, -1: reject.tokens})


def _from_one_place(one: Tokens, other: Tokens) -> tuple[Tokens, Tokens]:
    """Let the completions of a pair begin after the shorter prompt, as in TRL."""
    start = min(len(one.prompt), len(other.prompt))
    return tuple(Tokens(head[:start], head[start:] + tail) for head, tail in (one, other))  # type: ignore[return-value]


def check_held_out(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, context: int | None) -> None:
    """Check that every held-out prompt leaves room for the answer that the evaluation will sample.

    Args:
        dataset: both splits. Its provenance may declare the length of an answer (`tokens`), else one token has to fit.
        tokenizer: the model's.
        context: the most tokens that the model reads; None: no limit.

    Raises:
        UserError: a null prompt, or one that leaves no room for its answer.
    """
    name, table, answer = dataset.metadata.id, dataset.table, _longest(dataset) or 1
    prompts = table.filter(pc.equal(table.column("split"), "test")).column("prompt").to_pylist()
    for prompt, row in {prompt: row for row, prompt in reversed(list(enumerate(prompts)))}.items():
        where = f"row {row} of the split test"
        if prompt is None:
            raise UserError(f"{name}: {where} has no prompt: leave it out")
        length = len(prompt_tokens(tokenizer, prompt))
        if context is not None and length + answer > context:
            raise UserError(
                f"{name}: the prompt of {where} has {length} tokens, and with {answer} of an answer they do not fit "
                f"the model's context of {context}: shorten it, leave it out, or choose a model of a longer context"
            )


def _longest(dataset: Dataset) -> int | None:
    """Return the greatest length of a completion in tokens, None if the dataset does not declare it."""
    found = dataset.metadata.provenance.settings.get("tokens")
    return found if isinstance(found, int) else None
