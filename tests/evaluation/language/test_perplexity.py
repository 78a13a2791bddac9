"""Perplexity against a plain pass and a plain loop, and a text that a vocabulary cannot write."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from pmpo_offline.evaluation.language.perplexity import perplexity, prose, windows
from pmpo_offline.policies.language.tokens import Tokens, with_prefix
from pmpo_offline.runtime.errors import UserError

TEXT = "The ferry leaves at six, in the fog. Nobody waits."


def by_hand(model, text: str, window: int, stride: int) -> float:
    """Token by token: each is predicted from the window that scores it, read afresh and alone."""
    ids = model.tokenizer(text).input_ids
    total = 0.0
    end, scored = min(window, len(ids)), 1
    while scored < len(ids):
        for target in range(scored, end):
            read = torch.tensor([ids[max(0, end - window) : target]])
            with torch.no_grad():
                last = model.model(input_ids=read, use_cache=False).logits[0, -1].double().log_softmax(-1)
            total -= float(last[ids[target]])
        end, scored = min(end + stride, len(ids)), end
    return math.exp(total / (len(ids) - 1))


@pytest.mark.parametrize("window", [100, 12, 7, 2])
def test_equals_a_plain_loop(byte_model, window):
    model = byte_model(0, max_position_embeddings=window)
    assert perplexity(model, TEXT) == pytest.approx(by_hand(model, TEXT, window, window // 2), rel=1e-4)


def test_no_window_is_longer_than_the_limit(byte_model, monkeypatch):
    monkeypatch.setattr("pmpo_offline.evaluation.language.perplexity.WINDOW", 12)
    model = byte_model(0)
    assert perplexity(model, TEXT) == pytest.approx(by_hand(model, TEXT, 12, 6), rel=1e-4)


def test_the_text_before_prompts_is_read_and_not_scored(byte_model):
    model = byte_model(0)
    before, ids = model.tokenizer("Good: ").input_ids, model.tokenizer(TEXT).input_ids
    with torch.no_grad():
        logp = model.model(torch.tensor([before + ids])).logits[0].double().log_softmax(-1)
    scored = [logp[len(before) + place - 1, ids[place]] for place in range(1, len(ids))]
    behind = replace(model, tokenizer=with_prefix(model.tokenizer, "Good: "))
    assert perplexity(behind, TEXT) == pytest.approx(math.exp(-sum(scored) / len(scored)))


def test_a_model_without_opinions_is_as_surprised_as_its_vocabulary_is_large(byte_model):
    model = byte_model(0)
    torch.nn.init.zeros_(model.model.lm_head.weight)
    assert perplexity(model, TEXT) == pytest.approx(257)


def test_logits_that_exploded_surprise_without_end(byte_model):
    model = byte_model(0)
    with torch.no_grad():
        model.model.lm_head.weight.mul_(1e6)
    assert perplexity(model, TEXT) == math.inf


@pytest.mark.parametrize(("length", "window", "stride"), [(1, 4, 2), (2, 4, 2), (4, 4, 2), (5, 4, 3), (50, 7, 2)])
def test_windows_score_every_token_but_the_first_once(length, window, stride):
    ids = tuple(range(length))
    rows = list(windows(ids, window, stride))
    assert sum((row.completion for row in rows), ()) == ids[1:]
    for i, row in enumerate(rows):
        assert row.prompt + row.completion == tuple(range(row.prompt[0], row.completion[-1] + 1))
        assert len(row.prompt) + len(row.completion) <= window
        assert row.completion
        assert i == 0 or len(row.prompt) >= window - stride


def test_the_drawing():
    rows = list(windows(tuple(range(10)), 6, 3))
    assert rows == [Tokens((0,), (1, 2, 3, 4, 5)), Tokens((3, 4, 5), (6, 7, 8)), Tokens((4, 5, 6, 7, 8), (9,))]


def test_a_vocabulary_that_lacks_the_text(random_model):
    assert perplexity(random_model(0), prose()) is None
    assert perplexity(random_model(0), "hbcad=dacbh") > 1


def test_mistakes(byte_model):
    with pytest.raises(UserError, match="shorter"):
        perplexity(byte_model(0), "a")


def test_the_projects_own_text():
    assert 600 <= len(prose().split()) <= 1000
    assert prose().isascii()
