"""Openings and their scores."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from pmpo_offline.runtime.errors import UserError
from pmpo_offline.tasks.language import get, sentiment

TASK = get("language/sentiment")


def test_openings_are_different_and_more_begin_with_fewer():
    prompts = TASK.prompts(2000, 0)
    assert len(set(prompts)) == 2000
    assert not any(prompt.endswith(" ") or "{" in prompt for prompt in prompts)
    assert TASK.prompts(5, 0) == prompts[:5]
    assert TASK.prompts(5, 1) != prompts[:5]
    with pytest.raises(UserError, match=r"language/sentiment has 2,304 different prompts"):
        TASK.prompts(3000, 0)


def test_score_is_the_sentiment_of_the_completion_alone():
    texts = [" a wonderful place, and we loved it.", " made of stone.", " horrible, dirty and sad."]
    scores = TASK.reward(["The terrible hotel was"] * 3, texts)
    assert scores.dtype == np.float32
    assert scores[0] > 0.5
    assert scores[1] == 0
    assert scores[2] < -0.5
    assert (np.abs(scores) <= 1).all()


def test_missing_lexicon_is_one_line_that_says_what_to_install(monkeypatch):
    sentiment._lexicon.cache_clear()
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    with pytest.raises(UserError, match=r"not installed: pip install 'pmpo-offline\[language\]'"):
        TASK.reward(["x"], ["y"])
