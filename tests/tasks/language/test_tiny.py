"""The tiny language model: half learned, cached whole or not at all."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from pmpo_offline.policies.language import open_model
from pmpo_offline.runtime.errors import Notice
from pmpo_offline.runtime.progress import on_progress
from pmpo_offline.tasks.language import SamplingSpec, draw, get, model_directory, models, tiny

TASK = get("language/tiny")


def test_prompts_are_different_and_more_begin_with_fewer():
    prompts = TASK.prompts(1000, 0)
    assert len(set(prompts)) == 1000
    assert all(len(prompt) == 6 and prompt[5] == "=" and set(prompt[:5]) <= set("abcdefgh") for prompt in prompts)
    assert TASK.prompts(10, 0) == prompts[:10]
    assert TASK.prompts(10, 1) != prompts[:10]
    assert len(set(TASK.prompts(8**5, 0))) == 8**5


def test_reward_is_exact_reversal():
    answers = {"edcba": 1, "edcbb": 0, "abcde": 0, "": 0, "edcb": 0, "edcbaa": 0, "edcba=": 0}
    rewards = TASK.reward(["abcde="] * len(answers), list(answers))
    assert rewards.dtype == np.float32
    assert rewards.tolist() == list(answers.values())


def test_half_of_the_corpus_has_exactly_one_wrong_letter():
    ids = tiny._corpus(4000, torch.Generator().manual_seed(0))
    wrong = (ids[:, :5].flip(1) != ids[:, 6:11]).sum(1)
    assert set(wrong.tolist()) == {0, 1}
    assert wrong.float().mean().item() == pytest.approx(0.5, abs=0.03)
    text = tiny.tokenizer().decode(ids[0])
    assert text[5] == "="
    assert text.endswith("</s>")


def test_model_is_right_a_little_more_than_half_of_the_time(tiny):
    prompts = TASK.prompts(800, seed=9)
    drawn = draw(tiny, prompts, SamplingSpec(4, TASK.tokens, TASK.ends))
    right = np.array([TASK.reward([p] * 4, texts) for p, texts in zip(prompts, drawn.text, strict=True)]) > 0
    assert 0.5 < right.mean() < 0.7
    assert (right.any(1) & ~right.all(1)).mean() > 0.7, "most prompts have answers of both kinds"
    assert 300_000 < sum(weight.numel() for weight in tiny.model.parameters()) < 360_000


def test_the_declared_model_stays_what_it_is():
    """Its 600 updates take half a minute: other tests have one of fewer, which is as often right."""
    assert tiny.identity().startswith("238385af22c349d5"), "whoever has the model gets another one"


def test_model_is_made_once(tmp_path, monkeypatch):
    few = models.OWN["tiny"]._replace(make=partial(tiny.make, steps=2))
    monkeypatch.setitem(models.OWN, "tiny", few)
    with pytest.warns(Notice, match=r"the model tiny is trained first, which takes some 20 s, .* kept in .*/tiny-"):
        path = model_directory("tiny", tmp_path)
    before, made = path.stat().st_mtime_ns, open_model(path, device="cpu")
    with on_progress(lambda *_: pytest.fail("made again")):
        assert model_directory("tiny", tmp_path) == path
    assert path.stat().st_mtime_ns == before
    with pytest.warns(Notice):
        other = model_directory("tiny", tmp_path / "other")
    assert open_model(other, device="cpu").digest == made.digest, "equal settings make an equal model"


def test_interrupted_training_leaves_nothing_and_random_numbers_as_they_were(tmp_path):
    def interrupt(stage, done, total):
        if done == 3:
            raise KeyboardInterrupt

    torch.manual_seed(5)
    before = torch.get_rng_state()
    note = pytest.warns(Notice, match=r"the model tiny is trained first, which takes some 20 s, .* kept in .*/tiny-")
    with pytest.raises(KeyboardInterrupt), on_progress(interrupt), note:
        model_directory("tiny", tmp_path)
    assert not list((tmp_path / ".models").iterdir())
    assert torch.equal(torch.get_rng_state(), before)
