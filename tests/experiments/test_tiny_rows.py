"""The tiny language with labels of its own: a small reference, a few prompts."""

from __future__ import annotations

import functools

import pytest
import torch

from benchmarks.experiments import tiny_rows
from benchmarks.experiments.stability import language

CLEAN = {"share": None, "kind": "labels", "coverage": 1.0, "flips": 0.0}


@pytest.fixture(scope="module", autouse=True)
def small():
    reference = functools.cache(functools.partial(language.reference.__wrapped__, updates=120, batch=16))
    with pytest.MonkeyPatch.context() as patched:
        for module in (language, tiny_rows):
            patched.setattr(module, "reference", reference)
        patched.setattr(tiny_rows, "PROMPTS", 64)
        patched.setattr(tiny_rows, "corpus", functools.cache(tiny_rows.corpus.__wrapped__))
        yield


def test_learners_start_at_the_reference_which_scores_zero(monkeypatch):
    monkeypatch.setattr(tiny_rows, "UPDATES", 2)
    for name in tiny_rows.LEARNERS:
        setting = {**tiny_rows.LEARNERS[name].grid[0], "rate": 1e-9}
        found = tiny_rows.cells("language", name, [CLEAN], [0, 1], [setting])
        assert found["score"].abs().max() < 1e-3, name


def test_pairs_are_of_one_prompt_and_of_both_labels():
    _, label, _, _ = tiny_rows.corpus()
    labels = tiny_rows.imbalanced(label.numpy(), None, 0, **CLEAN)
    accepted, rejected = (pool.draw([0], 0, 200)[0] for pool in tiny_rows._pair_pools([tiny_rows.Run(labels, 0)]))
    assert (label[accepted] > 0).all()
    assert (label[rejected] < 0).all()
    assert torch.equal(accepted // language.RESPONSES, rejected // language.RESPONSES)


def test_cloning_the_accepts_raises_them(monkeypatch):
    monkeypatch.setattr(tiny_rows, "UPDATES", 30)
    found = tiny_rows.cells("language", "bc-accepted", [CLEAN], [0], [{}])
    tokens, label, before, _ = tiny_rows.corpus()
    run = tiny_rows.ARMS["bc-accepted"].run("bandit", tiny_rows.imbalanced(label.numpy(), None, 0, **CLEAN), 0, {})
    after = tiny_rows.learn("bc-accepted", [run]).log_prob(tokens, language.PROMPT)[0]
    assert (after - before)[label > 0].mean() > (after - before)[label < 0].mean()
    assert found["reject_share"][0] == pytest.approx(float((label < 0).float().mean()))


def test_another_reference_is_where_learners_start_and_what_holds_them(monkeypatch):
    monkeypatch.setattr(tiny_rows, "UPDATES", 20)
    poor = language.reference.__wrapped__(updates=20, batch=16)
    tokens, label, _, _ = tiny_rows.corpus()
    labels = tiny_rows.imbalanced(label.numpy(), None, 0, **CLEAN)
    before = poor.log_prob(tokens, language.PROMPT).mean().item()

    def gain(name: str, setting: dict[str, float]) -> float:
        run = tiny_rows.ARMS[name].run("bandit", labels, 0, setting)
        return tiny_rows.learn(name, [run], start=poor).log_prob(tokens, language.PROMPT).mean().item() - before

    held, cloned = gain("PMPO AR", {"multiple": 1000.0}), gain("bc-accepted", {})
    assert cloned > 0.5
    assert abs(held) < 0.2 * cloned
