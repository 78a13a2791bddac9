"""KL against sums over every text that there is, and words counted by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from pmpo_offline.evaluation.language.drift import distinct, drift, words
from pmpo_offline.policies.language.tokens import Tokens


def plainly(model, row: Tokens) -> torch.Tensor:
    """Log-probabilities (n, V) at the completion's tokens: one row alone and every position."""
    ids = torch.tensor([row.prompt + row.completion])
    with torch.no_grad():
        logits = model.model(input_ids=ids, use_cache=False).logits[0].double()
    return logits.log_softmax(-1)[len(row.prompt) - 1 : -1]


def test_sums_are_those_of_a_plain_pass(random_model, monkeypatch):
    policy, reference = random_model(0), random_model(1)
    generator = torch.Generator().manual_seed(0)
    some = lambda n: tuple(torch.randint(3, 12, (n,), generator=generator).tolist())  # noqa: E731
    rows = [Tokens(some(1 + i % 4), some(i)) for i in range(7)]
    monkeypatch.setattr("pmpo_offline.evaluation.language.drift.BATCH", 3)
    found = drift(policy, reference, rows)
    for i, row in enumerate(rows):
        ours, theirs = plainly(policy, row), plainly(reference, row)
        chosen = torch.tensor(row.completion, dtype=torch.int64)[:, None]
        assert found.logp[i] == pytest.approx(float(ours.gather(1, chosen).sum()), abs=1e-4)
        assert found.reference_logp[i] == pytest.approx(float(theirs.gather(1, chosen).sum()), abs=1e-4)
        assert found.divergence[i] == pytest.approx(float((ours.exp() * (ours - theirs)).sum()), abs=1e-4)
    np.testing.assert_array_equal(found.length, range(7))
    np.testing.assert_array_equal(found.kl, found.logp - found.reference_logp)
    assert found.logp[0] == found.reference_logp[0] == found.divergence[0] == 0


def test_both_forms_have_the_mean_kl_of_whole_texts(random_model):
    """Over all texts of three tokens, weighted by the policy, both sums come to KL(π ‖ ρ) of the texts."""
    policy, reference = random_model(2, spread=0.2), random_model(3, spread=0.2)
    prompt = (4, 5, 3)
    rows = [Tokens(prompt, text) for text in product(range(len(policy.tokenizer)), repeat=3)]
    found = drift(policy, reference, rows)
    weight = np.exp(found.logp)
    assert weight.sum() == pytest.approx(1, abs=1e-4)
    assert (weight * found.divergence).sum() == pytest.approx((weight * found.kl).sum(), rel=1e-3)
    assert (weight * found.kl).sum() > 0.01


def test_modes_of_the_models_are_left_as_they_were(random_model):
    policy, reference = random_model(0, attention_dropout=0.5), random_model(0)
    policy.model.train()
    found = drift(policy, reference, [Tokens((4, 5), (6, 7))])
    assert found.kl == pytest.approx(0, abs=1e-5)  # without dropout
    assert policy.model.training
    assert not reference.model.training


def test_words():
    assert words("The cat's HAT, the hat!") == ["the", "cat's", "hat", "the", "hat"]
    assert distinct(["The cat's HAT, the hat!"]) == 3 / 5
    assert distinct(["a b", "b c"]) == 3 / 4
    assert distinct(["", " ,.!"]) is None
