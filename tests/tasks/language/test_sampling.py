"""Sampling against exact probabilities, whatever the batch, the padding and the order of the prompts."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from pmpo_offline.policies.language import LanguageModel, add_lora
from pmpo_offline.runtime.errors import PmpoOfflineError, UserError
from pmpo_offline.runtime.progress import on_progress
from pmpo_offline.tasks.language import SamplingSpec, draw, tiny

END = 1
PROMPTS = ["a=", "abcde=", "hgf=", "abcdefgh", "b", "abcde=", "cc=", "dd="]


def llama(**settings) -> LanguageModel:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"bos_token_id": None, "eos_token_id": END, "pad_token_id": 0, "vocab_size": 12}
    config = LlamaConfig(initializer_range=0.6, **{**shape, **ids, **settings})
    return LanguageModel(LlamaForCausalLM(config).eval(), tiny.tokenizer(), "small", "digest")


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return llama()


def test_neither_batch_nor_order_nor_company_changes_what_is_drawn(model):
    asked = SamplingSpec(per_prompt=3, tokens=7, ends=True, seed=4)
    together = draw(model, PROMPTS, asked)
    for batch in (1, 6, 10):
        assert draw(model, PROMPTS, asked, batch=batch) == together
    backwards = draw(model, PROMPTS[2::-1], asked)
    assert backwards.tokens == together.tokens[2::-1]
    assert draw(model, ["hgf="], asked).tokens == [together.tokens[2]]
    assert draw(model, ["hgf="], replace(asked, per_prompt=2)).tokens == [together.tokens[2][:2]]


def test_seeds_and_repeated_prompts_differ(model):
    one, other = (draw(model, PROMPTS, SamplingSpec(3, 7, ends=False, seed=seed)).tokens for seed in (0, 1))
    assert all(a != b for a, b in zip(one, other, strict=True))
    assert one[1] != one[5], "the same prompt asked twice"


@pytest.mark.parametrize("prompt", ["b", "abcdefgh"])  # the shorter one is padded
def test_first_two_tokens_have_exactly_the_models_distribution(model, prompt):
    rows = 2500
    drawn = draw(model, [prompt, "abcdefgh" if prompt == "b" else "b"], SamplingSpec(rows, 2, ends=True))
    counts = Counter(
        ids + ((END,) if ended else ()) for ids, ended in zip(drawn.tokens[0], drawn.ended[0], strict=True)
    )

    allowed = [END, *range(3, 12)]  # neither padding nor the unknown letter can be written
    ids = model.tokenizer(prompt, add_special_tokens=False).input_ids
    with torch.no_grad():

        def following(tail):
            logits = model.model(torch.tensor([[*ids, *tail]])).logits[0, -1, allowed]
            return dict(zip(allowed, logits.softmax(-1).tolist(), strict=True))

        first = following(())
        exact = {(END,): first[END]}
        for a, b in itertools.product(allowed[1:], allowed):
            exact[a, b] = first[a] * following((a,))[b]
    assert sum(exact.values()) == pytest.approx(1, abs=1e-5)
    assert counts.keys() <= exact.keys()
    chi_square = sum((counts[key] - rows * p) ** 2 / (rows * p) for key, p in exact.items())
    degrees = len(exact) - 1
    assert abs(chi_square - degrees) < 5 * (2 * degrees) ** 0.5


def test_completions_that_do_not_end_have_exactly_as_many_tokens(model):
    drawn = draw(model, PROMPTS, SamplingSpec(4, 9, ends=False))
    assert {len(ids) for each in drawn.tokens for ids in each} == {9}
    assert not any(ended for each in drawn.ended for ended in each)
    assert not {0, END, 2} & {token for each in drawn.tokens for ids in each for token in ids}


def test_completions_end_where_the_end_was_drawn(model):
    drawn = draw(model, PROMPTS, SamplingSpec(16, 9, ends=True))
    flat = [(ids, end) for each in zip(drawn.tokens, drawn.ended, strict=True) for ids, end in zip(*each, strict=True)]
    assert all(END not in ids for ids, _ in flat)
    assert all(len(ids) == 9 for ids, ended in flat if not ended)
    assert all(len(ids) < 9 for ids, ended in flat if ended)
    assert 0 < sum(ended for _, ended in flat) < len(flat)


def test_text_is_what_the_tokens_say_and_progress_is_reported(model):
    reported = []
    with on_progress(lambda *what: reported.append(what)):
        drawn = draw(model, PROMPTS, SamplingSpec(2, 5, ends=True), batch=4)
    assert [["".join(tiny._WORDS[i] for i in ids) for ids in each] for each in drawn.tokens] == drawn.text
    assert reported == [("sample completions", done, 8) for done in (2, 4, 6, 8)]


def test_adapters_and_other_architectures_are_sampled_from(model):
    asked = SamplingSpec(8, 6, ends=True)
    plain = draw(model, PROMPTS, asked).tokens
    network = llama().model
    adapted = LanguageModel(add_lora(network, 4, 8, ["q_proj", "down_proj"]), model.tokenizer, "adapted", "digest")
    assert draw(adapted, PROMPTS, asked).tokens == plain
    with torch.no_grad():
        for name, weight in adapted.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(generator=torch.Generator().manual_seed(0))
    assert draw(adapted, PROMPTS, asked).tokens != plain
    torch.manual_seed(0)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=12, n_embd=16, n_layer=2, n_head=2, n_positions=32, eos_token_id=END))
    other = LanguageModel(gpt2.eval(), model.tokenizer, "gpt2", "digest")
    together = draw(other, PROMPTS, asked)
    assert draw(other, PROMPTS, asked, batch=8).tokens == together.tokens


@pytest.mark.parametrize("weight", [torch.nan, torch.inf])
def test_a_model_that_diverged_is_refused_in_one_line(weight):
    broken = llama()
    torch.nn.init.constant_(broken.model.lm_head.weight, weight)
    with pytest.raises(PmpoOfflineError, match=r"^small: the probabilities of the next token are not numbers"):
        draw(broken, PROMPTS, SamplingSpec(2, 3, ends=True))


def test_prompt_longer_than_the_context_is_refused_in_one_line():
    short = llama(max_position_embeddings=8)
    with pytest.raises(UserError, match=r"^small reads 8 tokens, and a prompt of 6 with a completion of 3 is longer"):
        draw(short, ["abcde="], SamplingSpec(1, 3, ends=True))
