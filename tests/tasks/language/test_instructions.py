"""Checkers by hand-made answers, read from the prompt alone."""

from __future__ import annotations

import pytest

from pmpo_offline.runtime.errors import UserError
from pmpo_offline.tasks.language import get
from pmpo_offline.tasks.language.instructions import KINDS, fulfils, render

TASK = get("language/instructions")
SHORT = "Answer in one short sentence: What is a lamp for?"
WORD = 'Write a sentence about a lamp that contains the word "light".'
ONE = "Describe an old lamp in one sentence of at most twenty words."
FEW = "Say something about an old lamp in a few words."
YES = "Answer with yes or no: Can a lamp be blue?"


@pytest.mark.parametrize(
    ("instruction", "answer", "right"),
    [
        (SHORT, "A lamp gives light.", True),
        (SHORT, ' "A lamp gives light." \n', True),
        (SHORT, "A lamp gives light", False),  # it does not end as a sentence does
        (SHORT, "A lamp gives light. It is warm.", False),
        (SHORT, "A lamp is " + "very " * 20 + "useful.", False),
        (SHORT, "", False),
        (WORD, "The lamp gives a warm Light.", True),
        (WORD, "The lamp is lightweight.", False),
        (WORD, "The lamp is warm.", False),
        (WORD, "The lamp gives light, and", False),
        (WORD, "The lamp gives light. It is warm.", False),
        (WORD, "The light " + "shines and " * 14 + "ends.", False),
        (ONE, "It is made of brass and smells of oil.", True),
        (ONE, "Brass. Oil.", False),
        (ONE, "It is made of brass" + ", brass" * 17 + ".", False),
        (FEW, "Old but bright! And warm.", True),
        (FEW, "word " * 20 + "end.", False),
        (YES, "Yes, it can.", True),
        (YES, "**No.** Lamps are white.", True),
        (YES, "Nobody knows.", False),
        (YES, "Certainly yes.", False),
        (YES, "Yes", False),
    ],
)
def test_checks(instruction, answer, right):
    assert fulfils(render(instruction), answer) is right
    assert fulfils(instruction, answer) is right, "a prompt without a template is read as well"


def test_reward_scores_each_row_by_its_own_prompt():
    prompts = [render(SHORT), render(YES)]
    assert TASK.reward(prompts, ["Yes.", "Yes."]).tolist() == [1, 1]
    assert TASK.reward(prompts, ["Light.", "Light."]).tolist() == [1, 0]


def test_every_prompt_is_of_exactly_one_kind_and_kinds_are_equally_many():
    found = KINDS
    assert len({len(kind.prompts) for kind in found.values()}) == 1
    for name, kind in found.items():
        for prompt in kind.prompts:
            assert [other for other in found if found[other].pattern.fullmatch(prompt)] == [name]
    prompts = TASK.prompts(2000, 0)
    assert len(set(prompts)) == 2000
    assert TASK.prompts(50, 0) == prompts[:50]


def test_prompts_of_other_tasks_are_refused_in_one_line():
    with pytest.raises(UserError, match="cannot check an answer to 'Write a novel'") as error:
        TASK.reward(["Write a novel"], ["No."])
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"has 2,400 different prompts: ask for that many"):
        TASK.prompts(2401, 0)
