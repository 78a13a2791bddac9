"""Sequences read without padding say what they say with it."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import MistralConfig, MistralModel

from pmpo_offline.policies.language import scoring
from pmpo_offline.policies.language.scoring import states, token_logp
from pmpo_offline.policies.language.tokens import Tokens, collate
from pmpo_offline.policies.language.trunk import backbone, trunk_states
from pmpo_offline.policies.language.unpadded import is_unpadded, unpadded

APART = [
    Tokens((3, 4), (5, 6, 7, 8, 9, 10)),
    Tokens((9,), ()),
    Tokens((1, 2), (3,)),
    Tokens((10, 11, 12), (13, 14, 15)),
]
TOGETHER = [*APART, Tokens((3, 4), (8, 2, 30)), Tokens((10, 11, 12), (20, 21, 22, 23))]


@pytest.fixture(params=[APART, TOGETHER], ids=["apart", "packed"])
def batch(request):
    found = collate(request.param)
    assert (found.packing is None) == (request.param is APART)
    return found


def padded(monkeypatch, model, batch, **options):
    with monkeypatch.context() as changed:
        changed.setattr(scoring, "is_unpadded", lambda *_: False)
        return states(model, batch, **options)


@pytest.mark.parametrize("cut", [0, 1])
def test_states_and_gradients_are_those_with_padding(llama, batch, monkeypatch, cut):
    lora = LoraConfig(r=2, target_modules=["k_proj"], layers_to_transform=[1], init_lora_weights=False)
    model = get_peft_model(llama().double(), lora)
    options = {"trunk": trunk_states(model, batch.ids, cut), "cut": cut} if cut else {}
    sizes = []
    backbone(model).norm.register_forward_hook(lambda *call: sizes.append(call[-1].shape[:-1].numel()))
    found, expected = states(model, batch, **options), padded(monkeypatch, model, batch, **options)
    assert sizes[0] < sizes[1]
    torch.testing.assert_close(found, expected)

    def gradients(hidden):
        model.zero_grad()
        token_logp(model, hidden, batch.target).sum().backward()
        return [weight.grad.clone() for weight in model.parameters() if weight.requires_grad]

    torch.testing.assert_close(gradients(found), gradients(expected), rtol=1e-3, atol=1e-5)  # norms are in float32


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
