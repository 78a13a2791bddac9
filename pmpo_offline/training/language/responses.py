"""The responses that are learned from, as tokens, and what can be drawn from them: rows, pairs, groups of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from pmpo_offline.data import Dataset, columns
from pmpo_offline.policies.language.tokens import Tokens, prompt_tokens, tokenize
from pmpo_offline.runtime import progress
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.training.language.strata import Indices

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, eq=False)
class Responses:
    """R rows: a prompt and one completion each."""

    name: str
    """Of the dataset, for messages."""
    tokens: Sequence[Tokens]
    label: NDArray[np.int8]
    """(R,): +1 accept, −1 reject, 0 unlabelled."""
    score: NDArray[np.float32]
    """(R,), NaN where absent."""
    prompt: Indices
    """(R,): rows of equal number answer one prompt, and are compared with one another."""

    def __len__(self) -> int:
        """Return R."""
        return len(self.tokens)

    @cached_property
    def lengths(self) -> Indices:
        """(R,), tokens of prompt and completion."""
        return np.array([len(prompt) + len(completion) for prompt, completion in self.tokens], np.int64)

    @cached_property
    def pairs(self) -> Indices:
        """(P, 2), the rows of an accepted and of a rejected response to one prompt: every such pair, once."""
        found = []
        for rows in self._by_prompt:
            accepts, rejects = rows[self.label[rows] > 0], rows[self.label[rows] < 0]
            found.append(np.stack([accepts.repeat(len(rejects)), np.tile(rejects, len(accepts))], axis=1))
        return np.concatenate(found) if found else np.empty((0, 2), np.int64)

    @cached_property
    def groups(self) -> Indices:
        """(G, K), the scored rows of every prompt that has two or more of them; −1 fills up the shorter groups."""
        scored = [rows[~np.isnan(self.score[rows])] for rows in self._by_prompt]
        several = [rows for rows in scored if len(rows) > 1]
        groups = np.full((len(several), max(map(len, several), default=0)), -1, np.int64)
        for group, rows in zip(groups, several, strict=True):
            group[: len(rows)] = rows
        return groups

    @cached_property
    def advantage(self) -> NDArray[np.float32]:
        """(R,), each score less the mean score of its prompt; NaN where no other response says what is usual."""
        advantage = np.full(len(self), np.nan, np.float32)
        for group in self.groups:
            rows = group[group >= 0]
            advantage[rows] = self.score[rows] - self.score[rows].mean()
        return advantage

    @cached_property
    def _by_prompt(self) -> list[Indices]:
        order = np.argsort(self.prompt, kind="stable")
        ends = np.flatnonzero(np.diff(self.prompt[order])) + 1
        return np.split(order, ends) if len(order) else []

    def top(self, share: float) -> Indices:
        """Return this share of the rows, those of the highest scores."""
        known = np.flatnonzero(~np.isnan(self.score))
        count = round(share * len(known))
        return np.sort(known[np.argsort(-self.score[known], kind="stable")][:count])

    def shuffled(self, seed: int) -> Responses:
        """Permute labels and scores among all rows: the control, whose feedback says nothing, nor who has some.

        Each for itself: rows that have a score without a label would tell accepts from rejects otherwise.
        """
        label = self.label[np.random.default_rng([seed, 7]).permutation(len(self))]
        score = self.score[np.random.default_rng([seed, 8]).permutation(len(self))]
        return replace(self, label=label, score=score)


def part(dataset: Dataset, split: str) -> Dataset:
    """Return the prompts of one split, "train" or "test"; counts and reject masses are those of the rows that remain.

    What makes PMPO stable is a matter of the rows that are trained on, so these must not count the held-out ones. The
    masses are the labelled ones, after balancing (`bound.reject_mass` takes these where rows have contexts): a prompt
    comes with several responses, of which balancing drops some labels, but no two long responses are alike, and a
    network that remembers single ones is pushed away from the labelled ones alone.

    Whether one prompt's responses are rejected more often than another's does not matter: PMPO averages each class over
    all prompts together, so that every reject weighs 1 / P_r of what the divergence weighs there, with P_r the mass
    over all prompts. Summed over tokens, that holds at every prefix; with the mean over tokens it shifts by how much
    shorter or longer rejects are.

    Raises `UserError` for transitions, and where nothing is left.
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


def read(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    context: int,
) -> Responses:
    """Return the rows of a dataset of responses as tokens; completions that do not fit are cut, and then do not end.

    Args:
        dataset: `part` of one, say. Its provenance tells whether completions end (`ends`, true unless it says no),
            and what their longest may be (`tokens`): one that was cut when it was sampled has no end here either.
        tokenizer: the model's.
        context: the most tokens that a row may have, prompt and completion together.

    Raises:
        UserError: a null text, or a prompt that leaves no room for a completion.
    """
    name, table = dataset.metadata.id, dataset.table
    prompts, completions = table.column("prompt").to_pylist(), table.column("completion").to_pylist()
    told = dataset.metadata.provenance.settings
    ends, longest = bool(told.get("ends", True)), told.get("tokens")
    tokens: list[Tokens] = []
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        if prompt is None or completion is None:
            raise UserError(f"{name}: row {row} has no {'prompt' if prompt is None else 'completion'}: leave it out")
        each = tokenize(tokenizer, prompt, completion, ends=ends, longest=longest if isinstance(longest, int) else None)
        room = context - len(each.prompt)
        if room < 1:
            raise UserError(
                f"{name}: the prompt of row {row} has {len(each.prompt)} tokens and the context {context}: shorten it, "
                "leave it out, or raise max_length as far as the model reaches"
            )
        tokens.append(Tokens(each.prompt, each.completion[:room]))
        if row % 500 == 499 or row + 1 == len(prompts):
            progress.report("tokenize", row + 1, len(prompts))
    return Responses(
        name,
        tokens,
        columns.labels(table),
        columns.vector(table, "score").astype(np.float32),
        columns.vector(table, "prompt_id").astype(np.int64),
    )


def check_held_out(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, context: int | None) -> None:
    """Make sure that a model can answer every held-out prompt, as the evaluation will ask it to.

    Args:
        dataset: all of it. Its provenance may tell how long an answer is (`tokens`), else one token has to fit.
        tokenizer: the model's.
        context: the most tokens that the model reads; None: there is no limit.

    Raises:
        UserError: a null prompt, or one that leaves no room for its answer.
    """
    name, table = dataset.metadata.id, dataset.table
    told = dataset.metadata.provenance.settings.get("tokens")
    answer = told if isinstance(told, int) else 1
    prompts = table.filter(pc.equal(table.column("split"), "test")).column("prompt").to_pylist()
    for prompt, row in {prompt: row for row, prompt in reversed(list(enumerate(prompts)))}.items():
        where = f"row {row} of the split test"
        if prompt is None:
            raise UserError(f"{name}: {where} has no prompt: leave it out")
        length = len(prompt_tokens(tokenizer, prompt))
        if context is not None and length + answer > context:
            raise UserError(
                f"{name}: the prompt of {where} has {length} tokens, and with {answer} of an answer they do not fit "
                f"the model's context of {context}: shorten it or leave it out, or it could not be evaluated on"
            )
