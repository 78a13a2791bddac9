"""Fresh samples: the same random numbers for all, the task's reward, success as the dataset labels it."""

from __future__ import annotations

import numpy as np
import pytest
from peft import LoraConfig, get_peft_model
from torch import nn

from pmpo_offline.data import load_dataset, write
from pmpo_offline.evaluation.language import Sampling, evaluate_language
from pmpo_offline.evaluation.language.held_out import completion_form, held_out_prompts, held_out_responses
from pmpo_offline.evaluation.language.report import SCHEMA, accepted
from pmpo_offline.policies.language import LanguageModel
from pmpo_offline.runtime.errors import UserError
from pmpo_offline.tasks.language.tiny import TASK


def test_one_row_a_sample(random_model, reversals):
    policy, reference = random_model(0), random_model(1)
    dataset = reversals(train=2, test=6)
    frame = evaluate_language(policy, reference, dataset, Sampling(samples=3, seed=5))
    assert frame.schema == SCHEMA
    assert frame.height == 18
    assert set(frame["prompt_id"]) == set(range(2, 8))  # held out
    assert frame["sample"].to_list() == [0, 1, 2] * 6
    texts = dict(held_out_prompts(dataset).iter_rows())
    prompts = [texts[i] for i in frame["prompt_id"]]
    np.testing.assert_array_equal(frame["return"], TASK.reward(prompts, frame["completion"].to_list()))
    assert frame["success"].to_list() == [value > 0.5 for value in frame["return"]]
    assert (frame["length"] <= 6).all()
    assert (frame["token_kl"] > 0).all()
    assert (frame["reference_logp"] < 0).all()


def test_equal_policies_get_equal_samples_and_drift_nowhere(random_model, reversals):
    policy, twin = random_model(0), random_model(0)
    dataset = reversals()
    frame = evaluate_language(policy, twin, dataset, Sampling(samples=2, seed=1))
    assert frame.equals(evaluate_language(twin, policy, dataset, Sampling(samples=2, seed=1)))
    np.testing.assert_allclose(frame["kl"], 0, atol=1e-5)
    np.testing.assert_allclose(frame["token_kl"], 0, atol=1e-5)
    other = evaluate_language(policy, twin, dataset, Sampling(samples=2, seed=2))
    assert frame["completion"].to_list() != other["completion"].to_list()


def test_a_small_change_of_the_policy_changes_few_samples(random_model, reversals):
    """Common random numbers: where a fresh draw would change nearly all 60 samples, a nudge changes some."""
    reference, nudged = random_model(0), random_model(0)
    lora = get_peft_model(nudged.model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    for name, weight in lora.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.02)
    policy = LanguageModel(lora.eval(), nudged.tokenizer, "nudged", "nudged")
    dataset = reversals(test=20)
    before = evaluate_language(reference, reference, dataset, Sampling(samples=3, seed=0))["completion"].to_list()
    after = evaluate_language(policy, reference, dataset, Sampling(samples=3, seed=0))
    same = np.mean([a == b for a, b in zip(before, after["completion"], strict=True)])
    assert 0.5 < same < 1
    again = evaluate_language(reference, reference, dataset, Sampling(samples=3, seed=1))["completion"].to_list()
    assert np.mean([a == b for a, b in zip(before, again, strict=True)]) < 0.3


def test_fewer_prompts_are_the_first_of_more(random_model, reversals):
    policy = random_model(0)
    dataset = reversals(test=10)
    few = evaluate_language(policy, policy, dataset, Sampling(prompts=4))
    many = evaluate_language(policy, policy, dataset)
    assert many.height == 10
    assert few["completion"].to_list() == many["completion"][:4].to_list()
    assert few["prompt_id"].to_list() == many["prompt_id"][:4].to_list()
    stored = held_out_responses(dataset, 4)
    assert stored["prompt_id"].to_list() == [i for i in few["prompt_id"] for _ in range(2)]


def test_without_a_reward_function_the_rest_is_evaluated(random_model, reversals):
    policy = random_model(0)
    dataset = reversals(task="hf/other")
    frame = evaluate_language(policy, random_model(1), dataset)
    assert frame["return"].null_count() == frame["success"].null_count() == frame.height
    assert frame["kl"].null_count() == 0


def test_success_follows_the_label_rule(reversals):
    rewards = np.array([0.1, 0.5, 0.55, 0.7], np.float32)
    assert accepted(reversals(label="reward:0.5"), rewards) == [False, False, True, True]
    assert accepted(reversals(label="reward:0.5:0.1"), rewards) == [False, False, False, True]
    assert accepted(reversals(label="reward:q0.5"), rewards) == [False, False, True, True]  # of zeros and ones
    assert accepted(reversals(label="column:0.5"), rewards) is None


def test_how_completions_end(random_model, reversals):
    model = random_model(0)
    assert completion_form(reversals(), model) == (6, True)
    assert completion_form(reversals(settings={"ends": False, "tokens": 3}), model) == (3, False)
    assert completion_form(reversals(settings={}), model) == (6, True)  # five letters and an end
    frame = evaluate_language(model, model, reversals(settings={"ends": False, "tokens": 3}))
    assert set(frame["length"]) == {3}


def test_a_long_answer_leaves_the_prompts_their_place(random_model, responses):
    short = random_model(0, max_position_embeddings=12)
    rows = [("abcde=", "edcba" * 4, 1.0, "test"), ("abcde=", "aa", 0.0, "test"), ("abc=", "cba", 1.0, "test")]
    dataset = responses(rows, settings={})
    assert completion_form(dataset, short) == (6, True)  # the longest prompt has six tokens
    assert completion_form(dataset, random_model(0)) == (21, True)
    assert evaluate_language(short, short, dataset)["length"].max() <= 6


def test_what_cannot_be_evaluated(random_model, tmp_path, responses, reversals):
    model = random_model(0)
    with pytest.raises(UserError, match="holds out no prompts"):
        evaluate_language(model, model, reversals(test=0))
    with pytest.raises(UserError, match="do not fit"):
        evaluate_language(random_model(0, max_position_embeddings=8), model, reversals())
    assert responses([("a=", "b", 1.0, "test"), ("a=", "c", 0.0, "test")]).metadata.counts.accepted == 1
    dataset = reversals()
    write(tmp_path / "d", dataset.metadata, {"responses": dataset.table})  # and it is one that can be stored
    assert evaluate_language(model, model, load_dataset(tmp_path / "d")).height == 6


def test_a_prompt_that_is_too_long_is_named(random_model, responses):
    policy = random_model(0, max_position_embeddings=10)
    dataset = responses([("ab=", "ba", 1.0, "test"), ("abcdefghij=", "j", 0.0, "test")], settings={})
    with pytest.raises(UserError, match=r"language/test-v0: the prompt of row 1 of the split test has 11 tokens"):
        evaluate_language(policy, policy, dataset)
