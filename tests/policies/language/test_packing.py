"""Packing and unpadding: the same states and gradients in fewer places; neither where it saves too little."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM, MistralModel

from pmpo_offline.policies.language import scoring, tokens
from pmpo_offline.policies.language.scoring import (
    backbone,
    is_unpadded,
    shares_prompts,
    states,
    token_logp,
    trunk_states,
    unpadded,
)
from pmpo_offline.policies.language.tokens import TokenBatch, Tokens, collate, pack

PAIR = [Tokens((3, 4, 5), (6, 7, 8, 9)), Tokens((3, 4, 5), (10, 11, 12))]
FOUR = [*PAIR, Tokens((20, 21), (22, 23)), Tokens((20, 21), ()), Tokens((3, 4, 5), (13,)), Tokens((20, 21), (24, 25))]
APART = [
    Tokens((3, 4), (5, 6, 7, 8, 9, 10)),
    Tokens((9,), ()),
    Tokens((1, 2), (3,)),
    Tokens((10, 11, 12), (13, 14, 15)),
]
SHARED = [*APART, Tokens((3, 4), (8, 2, 30)), Tokens((10, 11, 12), (20, 21, 22, 23))]


def widths(model: Any) -> list[tuple[int, ...]]:
    """Notes the rows and places that go through the first layer from now on."""
    seen: list[tuple[int, ...]] = []
    backbone(model).layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[:2])))
    return seen


def apart(batch: TokenBatch) -> TokenBatch:
    return replace(batch, packing=None)


def test_by_hand():
    found = pack([row.prompt for row in PAIR], [4, 3])
    assert found.row.tolist() == [[0, 0, 0, 0, 0, 0, 1, 1]]
    assert found.place.tolist() == [[0, 1, 2, 3, 4, 5, 3, 4]]
    assert found.position.tolist() == [[0, 1, 2, 3, 4, 5, 3, 4]]
    assert found.segment.tolist() == [[0, 0, 0, 1, 1, 1, 2, 2]]
    assert found.sequence.tolist() == [0] * 7
    assert found.at.tolist() == [2, 3, 4, 5, 2, 6, 7]
    assert collate(PAIR).packing.take(collate(PAIR).ids).tolist() == [[3, 4, 5, 6, 7, 8, 10, 11]]
    seen = (found.mask(torch.float32)[0, 0] == 0).int().tolist()
    assert seen[5] == [1, 1, 1, 1, 1, 1, 0, 0]
    assert seen[7] == [1, 1, 1, 0, 0, 0, 1, 1]


def test_nothing_is_packed_where_nothing_is_shared_or_little_won():
    assert pack([(1, 2), (1, 3)], [2, 2]) is None
    assert pack([(1,), (1,)], [20, 20]) is None  # one place of 40
    assert pack([(1, 2, 3)], [4]) is None
    assert pack([(1, 2)], [0]) is None


def test_long_sequences_are_not_made_longer_without_end(monkeypatch):
    monkeypatch.setattr(tokens, "LONGEST", 12)
    found = pack([(1, 2, 3, 4)] * 6, [5] * 6)
    assert found.row.shape == (3, 12)
    rows = torch.arange(6).repeat_interleave(5)
    assert rows[found.sequence == 0].unique().tolist() == [0, 1]
    assert rows[found.sequence == 2].unique().tolist() == [4, 5]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("rows", [PAIR, FOUR], ids=["pair", "four"])
def test_states_and_gradients_are_those_of_the_rows_apart(llama, rows, attention):
    model = get_peft_model(llama().double(), LoraConfig(r=2, target_modules=["k_proj"], init_lora_weights=False))
    model.set_attn_implementation(attention)
    batch = collate(rows)
    seen = widths(model)
    packed = token_logp(model, states(model, batch), batch.target)
    plain = token_logp(model, states(model, apart(batch)), batch.target)
    if attention == "sdpa":  # without the padding
        assert seen == [(1, int(batch.packing.filled.sum())), (1, sum(len(p + c[:-1]) if c else 1 for p, c in rows))]
    else:
        assert seen == [tuple(batch.packing.segment.shape), tuple(batch.ids.shape)]
    torch.testing.assert_close(packed, plain, rtol=1e-5, atol=1e-5)  # norms and softmax are in float32

    def gradients(value: torch.Tensor) -> list[torch.Tensor]:
        model.zero_grad()
        (value * torch.linspace(-1, 1, len(value), dtype=value.dtype)).sum().backward()
        return [weight.grad.clone() for weight in model.parameters() if weight.requires_grad]

    torch.testing.assert_close(gradients(packed), gradients(plain), rtol=1e-3, atol=1e-5)


def test_from_the_trunk_too(llama):
    model = llama().double().requires_grad_(False)
    batch = collate(FOUR)
    below = trunk_states(model, batch.ids, 1)
    seen = widths(model)
    torch.testing.assert_close(states(model, batch, trunk=below, cut=1), states(model, apart(batch)))
    assert len(seen) == 1  # the rows apart: what comes from the trunk does not pass the first layer


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), min_size=1, max_size=9))
def test_any_rows(shape: list[tuple[int, int]]):
    """Every completion token is predicted by a place that holds its own row's token before it, at its own position."""
    prompts = [(1, 2, 3, 4), (5,), (6, 7)]
    rows = [Tokens(prompts[p], tuple(range(100 * i, 100 * i + c))) for i, (p, c) in enumerate(shape, 1)]
    batch = collate(rows)
    if batch.packing is None:
        return
    read = batch.packing.take(batch.ids)
    before = torch.tensor(
        [([*row.prompt, *row.completion])[len(row.prompt) - 1 + j] for row in rows for j in range(len(row.completion))]
    )
    position = torch.tensor([len(row.prompt) - 1 + j for row in rows for j in range(len(row.completion))])
    at = (batch.packing.sequence, batch.packing.at)
    assert read[at].equal(before)
    assert batch.packing.position[at].equal(position)
    visible = batch.packing.mask(torch.float32)[batch.packing.sequence, 0, batch.packing.at] == 0
    for token, row in enumerate(batch.row.tolist()):
        context = [*rows[row].prompt, *rows[row].completion][: int(position[token]) + 1]
        assert read[batch.packing.sequence[token]][visible[token]].tolist() == context


def test_networks_that_are_not_told_what_to_attend_to_read_rows_apart(llama):
    assert shares_prompts(llama().model, 10)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=37, n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2))
    batch = collate(PAIR)
    gpt2 = gpt2.eval().double()
    assert not shares_prompts(gpt2.transformer, 10)
    assert states(gpt2, batch).equal(states(gpt2, apart(batch)))
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    mistral = MistralForCausalLM(MistralConfig(vocab_size=37, num_key_value_heads=1, sliding_window=6, **shape))
    assert shares_prompts(mistral.model, 6)
    assert not shares_prompts(mistral.model, 7)


@pytest.fixture(params=[APART, SHARED], ids=["apart", "packed"])
def uneven(request):
    found = collate(request.param)
    assert (found.packing is None) == (request.param is APART)
    return found


def padded(monkeypatch, model, batch, **options):
    with monkeypatch.context() as changed:
        changed.setattr(scoring, "is_unpadded", lambda *_: False)
        return states(model, batch, **options)


@pytest.mark.parametrize("cut", [0, 1])
def test_states_and_gradients_are_those_with_padding(llama, uneven, monkeypatch, cut):
    lora = LoraConfig(r=2, target_modules=["k_proj"], layers_to_transform=[1], init_lora_weights=False)
    model = get_peft_model(llama().double(), lora)
    options = {"trunk": trunk_states(model, uneven.ids, cut), "cut": cut} if cut else {}
    sizes = []
    backbone(model).norm.register_forward_hook(lambda *call: sizes.append(call[-1].shape[:-1].numel()))
    found, expected = states(model, uneven, **options), padded(monkeypatch, model, uneven, **options)
    assert sizes[0] < sizes[1]
    torch.testing.assert_close(found, expected)

    def gradients(hidden):
        model.zero_grad()
        token_logp(model, hidden, uneven.target).sum().backward()
        return [weight.grad.clone() for weight in model.parameters() if weight.requires_grad]

    torch.testing.assert_close(gradients(found), gradients(expected), rtol=1e-3, atol=1e-5)


def test_the_model_has_its_own_attention_again_whatever_happens(llama):
    whole = backbone(llama())
    filled = torch.tensor([[True, True, True], [True, False, False]])
    assert is_unpadded(whole, filled)
    with unpadded(whole, filled, None):
        assert whole.config._attn_implementation != "sdpa"
    with pytest.raises(IndexError), unpadded(whole, filled, None):
        whole(input_ids=torch.full((1, 4), 99))  # no such word
    assert whole.config._attn_implementation == "sdpa"


def test_where_padding_stays(llama):
    model = llama()
    whole, filled = backbone(model), torch.tensor([[True, True, True], [True, False, False]])
    assert not is_unpadded(whole, torch.ones(3, 4, dtype=torch.bool))
    model.gradient_checkpointing_enable()
    assert not is_unpadded(whole, filled)
    model.gradient_checkpointing_disable()
    model.set_attn_implementation("eager")
    assert not is_unpadded(whole, filled)
    shape = {"vocab_size": 37, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    assert not is_unpadded(MistralModel(MistralConfig(**shape, **heads, sliding_window=2)), filled)
