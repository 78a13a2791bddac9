"""A local judge compares the probabilities of its two answers: in a batch as alone, with and without a template."""

from __future__ import annotations

import pytest
import torch

from pmpo_offline.evaluation.language.local_judge import LocalJudge
from pmpo_offline.evaluation.language.questions import Question
from pmpo_offline.runtime.errors import UserError

TEMPLATE = "{% for turn in messages %}<{{ turn.role }}>{{ turn.content }}{% endfor %}<me>"


def questions(count: int) -> list[Question]:
    return [Question(f"{'Which? ' * (i % 3)}{i}", (chr(65 + i), chr(66 + i))) for i in range(count)]


def plainly(model, text: str, one: str, other: str) -> str:
    """The likelier next byte."""
    ids = torch.tensor([model.tokenizer(text).input_ids])
    with torch.no_grad():
        logits = model.model(input_ids=ids, use_cache=False).logits[0, -1]
    letters = [model.tokenizer(each).input_ids[-1] for each in (one, other)]
    return one if logits[letters[0]] > logits[letters[1]] else other


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_takes_the_likelier_answer(byte_model, template):
    model = byte_model(3, spread=1.0)
    model.tokenizer.chat_template = template
    asked = questions(19)
    found = dict(LocalJudge(model).answer(asked))
    assert sorted(found) == list(range(19))
    for i, question in enumerate(asked):
        text = f"<user>{question.text}<me>" if template else f"{question.text}\n\nAnswer: "
        assert found[i] == plainly(model, text, *question.answers)
    assert {question.answers.index(found[i]) for i, question in enumerate(asked)} == {0, 1}


def test_answers_that_begin_alike_are_compared_where_they_part(byte_model):
    model = byte_model(0, spread=1.0)
    asked = [Question(f"Number {i}?", ("better", "best")) for i in range(20)]
    for i, answer in LocalJudge(model).answer(asked):
        letter = plainly(model, f"Number {i}?\n\nAnswer: be", "t", "s")
        assert answer == {"t": "better", "s": "best"}[letter]


def test_a_tie_is_no_answer(byte_model):
    model = byte_model(0)
    torch.nn.init.zeros_(model.model.lm_head.weight)
    assert dict(LocalJudge(model).answer(questions(2))) == {0: "", 1: ""}


def test_what_it_cannot_judge(byte_model):
    with pytest.raises(UserError, match="longer context"):
        list(LocalJudge(byte_model(0, max_position_embeddings=8)).answer(questions(1)))
    with pytest.raises(UserError, match="apart"):
        list(LocalJudge(byte_model(0)).answer([Question("?", ("A", "A"))]))
    judge = LocalJudge(byte_model(4))
    assert (judge.name, judge.identity) == ("random-4", "digest-4")
