"""What the rows of a dataset of responses can serve: advantages, accept rates, strata, shuffled labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.small_language import declared, train_dataset

from pmpo_offline import objectives
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.tasks.language.tiny import tokenizer
from pmpo_offline.training.config import Setup
from pmpo_offline.training.language.batches import InputSettings, Scorer
from pmpo_offline.training.language.responses import TokenizedResponses, take_split, tokenize_responses
from pmpo_offline.training.language.sampler import Division, Entries
from pmpo_offline.training.language.trl_data import dataset_of


def test_advantages_compare_the_responses_to_one_prompt(responses: TokenizedResponses) -> None:
    for prompt in range(12):
        rows = np.flatnonzero((responses.prompt == prompt) & ~np.isnan(responses.score))
        if len(rows) > 1:
            assert responses.advantage[rows] == pytest.approx(responses.score[rows] - responses.score[rows].mean())
        else:
            assert np.isnan(responses.advantage[rows]).all()


def test_accept_rates_are_those_of_the_labelled_responses_to_one_prompt(responses: TokenizedResponses) -> None:
    for row, prompt in enumerate(responses.prompt):
        labels = responses.label[responses.prompt == prompt]
        assert responses.accept_rate[row] == pytest.approx((labels > 0).sum() / max(1, (labels != 0).sum()))


def test_without_labels_to_serve_rows_are_left_out(responses: TokenizedResponses) -> None:
    values = Setup(declared("pmpo"), {}, train_dataset()).settled().settings
    labelled = int((responses.label != 0).sum())
    assert len(Entries(responses, declared("pmpo"), values)) == len(responses)
    assert len(Entries(responses, declared("pmpo"), {**values, "over": "labelled"})) == labelled
    assert len(Entries(responses, declared("kto", "balanced"), {})) == labelled
    assert len(Entries(responses, declared("topr"), {})) == labelled
    assert len(Entries(responses, declared("sspo"), {})) == len(responses), "it labels them itself"
    assert len(Entries(responses, declared("bc"), {})) == len(responses)
    best = Entries(responses, declared("bc", "top").model_copy(update={"top": 0.5}), {})
    assert len(best) == round(0.5 * labelled)  # rows without a label have no score here


def with_labels(*labels: bool | None) -> TokenizedResponses:
    rows = [{"prompt": "abcde=", "completion": "ab" * (i + 1), "label": label} for i, label in enumerate(labels)]
    return tokenize_responses(take_split(dataset_of(rows, tokenizer(), "mine"), "train"), tokenizer(), 32)


@pytest.mark.parametrize(
    ("algorithm", "labels", "message"),
    [
        (declared("dpo", "pairs"), [True, True], "no prompt of mine has an accepted and a rejected response"),
        (declared("pmpo"), [None, None], "learns from labelled responses and mine has none"),
        (declared("mpo", "candidates"), [True, None], "no prompt of mine has two or more"),
        (declared("awr"), [False], "no prompt of mine has two scored ones"),
    ],
)
def test_data_that_cannot_serve_an_objective_are_refused(algorithm: Any, labels: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Entries(with_labels(*labels), algorithm, {"over": "all"})


def test_one_class_is_one_stratum(policy: Any, tmp_path: Path) -> None:
    entries = Entries(with_labels(False, False, False), declared("pmpo"), {"over": "all"})
    sampler = entries.sampler(Division(2), 0)
    assert sampler.counts == [2]
    batch = entries.batch(sampler.draw(0)[0, 0], torch.ones(2), Scorer(policy, None, InputSettings()))
    loss, _ = objectives.pmpo(batch.logp, batch.label, batch.divergence)
    assert torch.isfinite(loss)


def test_shuffled_labels_are_as_many_and_fall_on_any_rows(responses: TokenizedResponses) -> None:
    shuffled = responses.shuffled(3)
    assert sorted(shuffled.label) == sorted(responses.label)
    assert ((shuffled.label != 0) != (responses.label != 0)).any()
    assert (shuffled.label != responses.label).any()
    assert (shuffled.label == responses.shuffled(3).label).all()
    assert (shuffled.label != responses.shuffled(4).label).any()


def test_shuffled_scores_are_as_many_and_leave_learners_of_scores_nothing(responses: TokenizedResponses) -> None:
    score = np.arange(len(responses), dtype=np.float32)
    score[::5] = np.nan
    scored = replace(responses, score=score)  # among them are rows without a label
    shuffled = scored.shuffled(3)
    assert (np.isnan(shuffled.score) != np.isnan(score)).any(), "nor does it speak who has a score"
    assert sorted(shuffled.score[~np.isnan(shuffled.score)]) == sorted(score[~np.isnan(score)])
    assert (shuffled.label == responses.shuffled(3).label).all()
    assert set(shuffled.top(0.2)) != set(scored.top(0.2))
    alike = []
    for seed in range(50):
        other = scored.shuffled(seed)
        known = ~np.isnan(scored.advantage) & ~np.isnan(other.advantage)
        alike.append(np.corrcoef(other.advantage[known], scored.advantage[known])[0, 1])
    assert abs(np.mean(alike)) < 0.1
