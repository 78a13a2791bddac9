"""Implicit rewards: pairs counted by hand and by scikit-learn, and a policy that prefers what it should."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from pmpo_offline.evaluation.language.preference import Preference, compare, preference
from pmpo_offline.policies.language.scoring import states, token_logp
from pmpo_offline.policies.language.tokens import collate, tokenize
from pmpo_offline.training.language.responses import TokenizedResponses


def labelled(label: np.ndarray, prompt: np.ndarray) -> TokenizedResponses:
    rows = len(label)
    return TokenizedResponses("test", [((), ())] * rows, np.where(label, 1, -1), np.full(rows, np.nan), prompt)


def test_by_hand():
    reward = np.array([2.0, 1.0, 1.0, 0.0, 5.0, 9.0])
    label = np.array([True, True, False, False, False, True])
    group = np.array([0, 0, 0, 0, 1, 2])
    # Prompt 0: 2 > 1, 2 > 0, 1 = 1, 1 > 0; prompts 1 and 2 have one class only.
    found = compare(reward, labelled(label, group))
    assert found.accuracy == 3.5 / 4
    assert found.auc == (2 + 1.5 + 3) / 9  # what 2, 1 and 9 each win against 1, 0 and 5
    assert found.auc == roc_auc_score(label, reward)
    assert found.margin == 4.0 - 2.0
    assert (found.pairs, found.accepted, found.rejected) == (4, 3, 3)


def test_against_scikit_learn():
    generator = np.random.default_rng(0)
    reward, label = np.round(generator.normal(size=300), 1), generator.random(300) < 0.3  # with ties
    found = compare(reward, labelled(label, np.zeros(300, np.int32)))
    assert found.auc == found.accuracy == pytest.approx(roc_auc_score(label, reward))
    assert compare(5 * reward, labelled(label, np.zeros(300, np.int32))).auc == found.auc  # β says nothing


def test_one_class_has_nothing_to_compare():
    one = compare(np.ones(3), labelled(np.ones(3, np.bool_), np.zeros(3, np.int32)))
    assert one == Preference(None, None, None, 0, 3, 0)


def test_rewards_come_from_both_models(random_model, reversals):
    policy, reference = random_model(0), random_model(1)
    dataset = reversals(train=1, test=8)
    found = preference(policy, reference, dataset)
    assert found.pairs == found.accepted == found.rejected == 8
    same = preference(policy, policy, dataset)
    assert (same.accuracy, same.auc, same.margin) == (0.5, 0.5, 0.0)
    few = preference(policy, reference, dataset, prompts=3)
    assert few.pairs == 3


def test_a_reference_that_is_known_is_not_run(random_model, reversals, tmp_path):
    policy, reference = random_model(0), random_model(1)
    dataset = reversals(train=1, test=8)
    plainly = preference(policy, reference, dataset)
    kept = preference(policy, reference, dataset, cache=tmp_path)
    assert kept == replace(plainly, margin=pytest.approx(plainly.margin, abs=1e-3))

    def run(*_):
        raise AssertionError("the reference is run")

    reference.model.register_forward_pre_hook(run)
    reference.model.model.register_forward_pre_hook(run)
    assert preference(policy, reference, dataset, cache=tmp_path) == kept
    with pytest.raises(AssertionError, match="is run"):
        preference(policy, reference, dataset)
    unmoved = preference(random_model(1), reference, dataset, cache=tmp_path)
    assert (unmoved.accuracy, unmoved.auc, unmoved.margin) == (0.5, 0.5, 0.0)


def test_a_cache_that_may_not_be_written_is_done_without(random_model, reversals, tmp_path):
    policy, reference, dataset = random_model(0), random_model(1), reversals(train=1, test=8)
    (tmp_path / "file").write_text("in the way")  # permissions would not stop root
    with pytest.warns(UserWarning, match=r"cannot write .*; going on without it") as caught:
        found = preference(policy, reference, dataset, cache=tmp_path / "file" / ".reference")
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    assert found == preference(policy, reference, dataset)


@pytest.mark.parametrize("recorded", [True, False])
def test_an_answer_that_was_cut_has_no_end_that_nobody_sampled(random_model, responses, monkeypatch, recorded):
    """By the dataset's longest completion, or by the context; the scores are those of the tokens learned from."""
    policy, reference = (random_model(seed, max_position_embeddings=10) for seed in (0, 1))
    rows = [("abcd=", "dcbaa", 1.0, "test"), ("abcd=", "dc", 0.0, "test")]
    dataset = responses(rows, settings={"tokens": 5} if recorded else {})
    seen = []
    monkeypatch.setattr(
        "pmpo_offline.evaluation.language.drift.collate", lambda rows: seen.extend(rows) or collate(rows)
    )
    assert preference(policy, reference, dataset).pairs == 1
    ours, theirs = seen[:2], seen[2:]
    assert ours == theirs
    end = policy.tokenizer.eos_token_id
    assert [len(row.completion) for row in ours] == [5, 3]
    assert [row.completion[-1] == end for row in ours] == [False, True]


def test_a_policy_that_learned_the_labels_is_right(random_model, reversals):
    """Ten steps up on the accepted texts and down on the rejected ones."""
    policy, reference = random_model(0), random_model(0)
    dataset = reversals(train=0, test=6)
    table = dataset.table.to_pydict()
    rows = [
        tokenize(policy.tokenizer, prompt, completion, ends=True)
        for prompt, completion in zip(table["prompt"], table["completion"], strict=True)
    ]
    batch, sign = collate(rows), torch.tensor([1.0 if label else -1.0 for label in table["label"]])
    optimizer = torch.optim.Adam(policy.model.parameters(), 3e-3)
    for _ in range(10):
        optimizer.zero_grad()
        logp = batch.reduce(token_logp(policy.model, states(policy.model, batch), batch.target), "sum")
        torch.nn.functional.softplus(-sign * logp / 10).mean().backward()
        optimizer.step()
    found = preference(policy, reference, dataset)
    assert found.accuracy == 1.0
    assert found.auc > 0.9
    assert found.margin > 0
