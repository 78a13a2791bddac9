"""Acceptance of a conditional policy by its label's text, against the model's own logits."""

from __future__ import annotations

import pytest
import torch
from helpers.small_language import by_hand, random_model

from benchmarks.experiments.language import conditional
from pmpo_offline.policies.language import LanguageModel
from pmpo_offline.policies.language.tokens import tokenize, with_prefix
from pmpo_offline.tasks.language.tiny import tokenizer

ANSWERS = [("hbcad=", "dacbh"), ("abcde=", "edcba")]


def test_acceptance_is_the_probability_of_the_right_response_behind_each_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditional, "_answers", lambda: ANSWERS)
    monkeypatch.setattr(conditional, "GUIDANCE", (0.0, 1.0))
    policy = LanguageModel(random_model(), tokenizer(), "random", "0" * 64)
    found = conditional.acceptance(policy, ["ab", "ba="])

    def expected(text: str) -> float:
        rows = [tokenize(with_prefix(policy.tokenizer, text), *pair, ends=True) for pair in ANSWERS]
        return float(torch.tensor([by_hand(policy.model, row, "sum") for row in rows]).exp().mean())

    assert found["hidden"] == pytest.approx(expected(""), rel=1e-4)
    assert found["accept"] == pytest.approx(expected("ab"), rel=1e-4)
    assert found["reject"] == pytest.approx(expected("ba="), rel=1e-4)
    assert found["guidance 0"] == pytest.approx(found["hidden"], rel=1e-4)
    assert found["guidance 1"] == pytest.approx(found["accept"], rel=1e-4)
    assert conditional.acceptance(policy, []).keys() == {"hidden"}
