"""A judge on this machine: a language model that is asked which of the two answers it would sooner give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from pmpo_offline.evaluation.language.measuring import batches_by_length, measuring
from pmpo_offline.evaluation.language.questions import Question
from pmpo_offline.policies.language.model import LanguageModel
from pmpo_offline.policies.language.scoring import log_probs, states
from pmpo_offline.policies.language.tokens import Tokens, collate, tokenize
from pmpo_offline.runtime.errors import UserError

BATCH = 8
"""Questions that are read at once; after each batch the answers are kept."""


class LocalJudge:
    """Compares the probabilities of both answers at the first token where they differ.

    It does not write: models that are small enough for this machine often write neither answer, which would leave
    nothing to count, and one look at the next token costs a single pass and has no chance in it. That such a judge
    always has an opinion does not mean that it has a good one: see its agreement with labels and its position bias.
    """

    def __init__(self, model: LanguageModel) -> None:
        """Take any causal language model; its chat template is used if it has one."""
        self.model = model

    @property
    def name(self) -> str:
        """The model's."""
        return self.model.name

    @property
    def identity(self) -> str:
        """The model's weights and tokenizer."""
        return self.model.digest

    def answer(self, questions: Sequence[Question]) -> Iterator[tuple[int, str]]:
        """Yield answers, long questions first; an exact tie is the empty answer.

        Raises:
            UserError: a question is longer than the model's context.
        """
        rows, rivals = [], []
        for question in questions:
            row, rival = self._row(question)
            rows.append(row)
            rivals.append(rival)
        for members in batches_by_length(rows, BATCH):
            with measuring(self.model.model):
                batch = collate([rows[i] for i in members]).to(self.model.device)
                scores = log_probs(self.model.model, states(self.model.model, batch)).cpu()
            last = (batch.length.cumsum(0) - 1).cpu()
            for i, place in zip(members, last.tolist(), strict=True):
                pair = scores[place, torch.tensor(rivals[i])]
                yield i, "" if pair[0] == pair[1] else questions[i].answers[int(pair.argmax())]

    def _row(self, question: Question) -> tuple[Tokens, tuple[int, int]]:
        """Return the question with what both answers begin with, and the tokens at which they part."""
        tokenizer = self.model.tokenizer
        if tokenizer.chat_template:
            turn = [{"role": "user", "content": question.text}]
            text = str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
            lead = ""
        else:
            text, lead = f"{question.text}\n\nAnswer:", " "
        one, other = (tokenize(tokenizer, text, lead + answer, ends=False) for answer in question.answers)
        shared = 0
        while one.completion[shared : shared + 1] == other.completion[shared : shared + 1] != ():
            shared += 1
        apart = one.completion[shared : shared + 1] + other.completion[shared : shared + 1]
        if len(apart) < 2:
            raise UserError(f"judge {self.name} cannot tell its answers {' and '.join(question.answers)} apart")
        row = Tokens(one.prompt, one.completion[: shared + 1])
        longest = getattr(self.model.model.config, "max_position_embeddings", None)
        if longest and len(row.prompt) + shared > longest:
            raise UserError(
                f"judge {self.name}: a question has {len(row.prompt)} tokens and its context {longest}: "
                "take a judge with a longer context"
            )
        return row, (apart[0], apart[1])
